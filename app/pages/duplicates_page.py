"""The Duplicates page: candidates that look alike, together, to be decided at once."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def duplicates_page() -> None:
    """Add the page to the open tab. static/duplicates.js fills it from ``app.duplicate_routes``."""
    scripted_page(
        "duplicates",
        "Duplicates",
        "Candidates that look alike, shown together. Decide once for a group, or one by one.",
    )
