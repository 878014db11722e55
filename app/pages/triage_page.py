"""The Triage page: the model that orders the queue, how good it is, and the bands it may decide."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def triage_page() -> None:
    """Add the page to the open tab. static/triage.js fills it from ``app.triage_routes``."""
    scripted_page(
        "triage",
        "Triage",
        "A model learns from the verdicts and orders the queue. It decides nothing until you confirm it.",
    )
