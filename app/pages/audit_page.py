"""The Audit page: draw a sample of a build, judge it blind, and read how pure the build is."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def audit_page() -> None:
    """Add the page to the open tab. static/audit.js fills it from ``app.audit_routes``."""
    scripted_page(
        "audit",
        "Audit",
        "How pure is a build? Draw a random sample, judge it blind, and state what it shows.",
    )
