"""The Evaluate page: what to evaluate, the tables, and one result drawn."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def evaluate_page() -> None:
    """Add the page to the open tab. static/evaluate.js fills it from ``app.evaluation_routes``."""
    scripted_page(
        "evaluate",
        "Evaluate",
        "How well detectors on trained and zero-shot prompts tell ID images from OOD ones, with intervals.",
    )
