"""detection: MCM, GL-MCM and the metrics, ID positive."""

from __future__ import annotations

import numpy as np
import torch

from ospcoop.conformance.vectors import Vectors
from ospcoop.detectors.mcm import glmcm_score, mcm_score
from ospcoop.metrics import aupr_in, auroc, fpr95_id_pos

ID = "ID"
OOD_SETS = ("iNaturalist", "SUN", "places365", "Texture")
METRIC_CASES = (
    "m.normal",
    "m.float32",
    "m.ties",
    "m.heavy_ties",
    "m.tiny_1_1",
    "m.tiny_1_1_rev",
    "m.tiny_1_1_tie",
    "m.tiny_3_2",
    "m.all_equal",
    "m.perfect",
    "m.reversed",
    "m.n20_exact95",
    "m.n10_nearest",
    "m.n8_below95",
    "m.n30",
    "m.unbalanced",
    "m.large_equal_blocks",
)


def check_detection(vectors: Vectors) -> None:
    """Scores, the metrics of the stored scores, and the metrics of given scores (detection.npz)."""
    sets = vectors.cases(".logits", (ID, *OOD_SETS))
    for name in sets:
        with vectors.case(name):
            logits = torch.from_numpy(vectors.input(f"{name}.logits"))
            local = torch.from_numpy(vectors.input(f"{name}.logits_local"))
            vectors.check(f"{name}.mcm", mcm_score(logits), abs=1e-6)
            vectors.check(f"{name}.glmcm", glmcm_score(logits, local), abs=1e-6)
    means: list[list[float]] = [[], []]
    for name in sets:
        if name == ID:
            continue
        with vectors.case(f"{name}.metrics"):
            for column, score in enumerate(("mcm", "glmcm")):
                # The tolerance is stated for the stored scores, so these are what is measured here.
                values = _measures(vectors.input(f"{ID}.{score}"), vectors.input(f"{name}.{score}"))
                vectors.check(f"{name}.metrics_{score}", values, abs=1e-9)
                means[column].append(values[0])
    with vectors.case("mean_auroc"):
        vectors.check("mean_auroc", [np.mean(column) for column in means], abs=1e-9)
    ending = ".auroc_aupr_fpr95"
    for case in vectors.cases(ending, METRIC_CASES):
        with vectors.case(case):
            values = _measures(-vectors.input(f"{case}.pos"), -vectors.input(f"{case}.neg"))
            vectors.check(f"{case}{ending}", values, abs=1e-9)


def _measures(id_scores: np.ndarray, ood_scores: np.ndarray) -> list[float]:
    return [metric(id_scores, ood_scores) for metric in (auroc, aupr_in, fpr95_id_pos)]
