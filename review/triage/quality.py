"""How good probabilities are: ranking, sharpness, calibration. Verdicts are 1 (accept) and 0 (reject)."""

from __future__ import annotations

import numpy as np

BINS = 10


def quality(truth: np.ndarray, p_accept: np.ndarray) -> dict[str, float]:
    """``auroc`` (ties count half), ``log_loss`` (nats), ``brier`` and ``ece``; both verdicts must occur."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    return {
        "auroc": float(roc_auc_score(truth, p_accept)),
        "log_loss": float(log_loss(truth, p_accept, labels=[0, 1])),
        "brier": float(brier_score_loss(truth, p_accept)),
        "ece": expected_calibration_error(truth, p_accept),
    }


def reliability(truth: np.ndarray, p_accept: np.ndarray, bins: int = BINS) -> list[dict]:
    """Bins of equal width over P(accept), empty ones left out: ``lower``, ``upper``, ``judged``, the mean
    ``p_accept`` and the share ``accepted``. Equal where the model is calibrated."""
    place = np.minimum((p_accept * bins).astype(int), bins - 1)
    return [
        {
            "lower": index / bins,
            "upper": (index + 1) / bins,
            "judged": int((place == index).sum()),
            "p_accept": float(p_accept[place == index].mean()),
            "accepted": float(truth[place == index].mean()),
        }
        for index in np.unique(place).tolist()
    ]


def expected_calibration_error(truth: np.ndarray, p_accept: np.ndarray, bins: int = BINS) -> float:
    """The bins' gaps between mean P(accept) and the share accepted, weighted by their verdicts (Guo et al. 2017)."""
    gaps = [abs(bin_["p_accept"] - bin_["accepted"]) * bin_["judged"] for bin_ in reliability(truth, p_accept, bins)]
    return float(sum(gaps) / len(truth))
