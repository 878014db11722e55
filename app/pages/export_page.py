"""The Export page: write a frozen build as an archive, check it, fetch it."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def export_page() -> None:
    """Add the page to the open tab. static/export.js fills it from ``app.export_routes``."""
    scripted_page(
        "export", "Export", "Write a frozen build as an archive. The same build gives the same bytes every time."
    )
