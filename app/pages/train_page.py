"""The Train page: what would go in, the hyper-parameters, and the runs with their curves."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def train_page() -> None:
    """Add the page to the open tab. static/train.js fills it from ``app.training_routes``."""
    scripted_page(
        "train",
        "Train",
        "Prompts learnt from a few-shot set and what was made of it: OSPCoOp, CoOp and LoCoOp.",
    )
