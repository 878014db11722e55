"""The Build page: choose a rule, see at once what it takes in and changes, freeze it, compare frozen builds."""

from __future__ import annotations

from app.pages.scripted import scripted_page


def build_page() -> None:
    """Add the page to the open tab. static/build.js fills it from ``app.build_routes``."""
    scripted_page(
        "build", "Build", "A build is a frozen, numbered, hashed list of candidates. The rule decides who is in it."
    )
