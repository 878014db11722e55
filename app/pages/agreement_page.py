"""The Agreement page: how far annotators agree, on what overlap, and how they do on gold items."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def agreement_page() -> None:
    """Add the page to the open tab. static/agreement.js fills it from
    ``app.review_agreement_routes`` and ``app.review_gold_routes``."""
    scripted_page(
        "agreement",
        "Agreement",
        "How far annotators agree, how many judge the same candidates, and how each does on gold items.",
    )
