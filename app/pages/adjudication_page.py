"""The Adjudication page: the final word where annotators disagree."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def adjudication_page() -> None:
    """Add the page to the open tab. static/adjudication.js fills it from ``app.review_adjudication_routes``."""
    scripted_page(
        "adjudication",
        "Adjudication",
        "Where annotators disagree, one final word. Builds follow it; what they said stays.",
    )
