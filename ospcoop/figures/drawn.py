"""Which charts a run and an evaluation have, as SVG text by file name. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from db.models import RunEpoch
from ospcoop.figures.scores import ScoreHistogram
from ospcoop.figures.stored import EvaluationFigures
from ospcoop.figures.svg import Axes, Series, chart

LOSSES = {
    "loss": "total",
    "loss_id": "cross entropy",
    "loss_ood": "global entropy, pseudo-OOD",
    "loss_en": "local entropy, outside the object",
}
TRAINING_METRICS = frozenset({*LOSSES, "accuracy", "images_per_s"})
SHARES = (0.0, 1.0)


def curve_figures(epochs: Sequence[RunEpoch]) -> dict[str, str]:
    """A run's charts: ``losses``, ``accuracy``, ``learning-rate`` and, where it was validated, ``validation``."""

    def series(name: str, words: str) -> Series:
        return Series(words, [(one.epoch + 1, one.metrics[name]) for one in epochs if name in one.metrics])

    others = list(dict.fromkeys(name for one in epochs for name in one.metrics if name not in TRAINING_METRICS))
    rates = Series("learning rate", [(one.epoch + 1, one.lr) for one in epochs])
    charts = {
        "losses": ("Losses", "mean loss", [series(name, words) for name, words in LOSSES.items()]),
        "accuracy": ("Training accuracy", "top-1, %", [series("accuracy", "accuracy")]),
        "learning-rate": ("Learning rate", "learning rate", [rates]),
        "validation": ("Validation", "AUROC", [series(name, name.replace("_", " ")) for name in others]),
    }
    return {
        name: chart(title, Axes("epoch", upward), lines)
        for name, (title, upward, lines) in charts.items()
        if any(line.points for line in lines)
    }


def score_figures(figures: EvaluationFigures) -> dict[str, str]:
    """An evaluation's charts: ``histogram``, ``roc``, ``reliability`` and, where the OOD set has pairs, ``photos``."""
    title, roc = figures.title, figures.roc
    curve = Series(f"AUROC {figures.auroc:.4f}", list(zip(roc.fpr.tolist(), roc.tpr.tolist(), strict=True)))
    dots = [(one.confidence, one.accuracy) for one in figures.reliability.bins]
    diagonal = [(0, 0, 1, 1)]
    drawn = {
        "histogram": _histogram(f"{title}: scores", figures.histogram, f"ID: {figures.id_set}", figures.ood_set),
        "roc": chart(
            f"{title}: ROC",
            Axes("ID images called OOD", "OOD images found", SHARES, SHARES),
            [curve],
            guides=diagonal,
        ),
        "reliability": chart(
            f"{title}: reliability",
            Axes("confidence", "accuracy", SHARES, SHARES),
            [Series(f"ECE {figures.reliability.ece:.4f}", dots, "dots")],
            guides=diagonal,
        ),
    }
    if figures.photos is not None:
        drawn["photos"] = _histogram(
            f"{title}: backgrounds and their photos",
            figures.photos,
            "the photos",
            f"the backgrounds, {figures.ood_set}",
        )
    return drawn


def _histogram(title: str, found: ScoreHistogram, inside: str, outside: str) -> str:
    edges = found.edges.tolist()
    areas = [
        Series(name, list(zip(edges, [*shares.tolist(), 0.0], strict=True)), "area")
        for name, shares in ((inside, found.id), (outside, found.ood))
    ]
    highest = float(max(found.id.max(), found.ood.max()))
    return chart(title, Axes("score, higher = more OOD", "share of images", y_range=(0.0, highest)), areas)
