"""What the tests of the Review page share: opening it, pressing keys, reading the verdicts."""

from __future__ import annotations

from sqlalchemy import select

from db.models import CurrentVerdict, Decision
from db.workspace import Workspace

SEEN = (
    "() => { const i = document.querySelector('.slide.on .pane-result img'); return i?.complete && i.naturalWidth > 0 }"
)
SHEET_SEEN = (
    "() => { const images = [...document.querySelectorAll('.sheet .tile-result')];"
    " return images.length > 0 && images.every((i) => i.complete && i.naturalWidth > 0) }"
)
DELIVERED = "() => !Object.keys(localStorage).some((key) => key.startsWith('imagenet-bg.outbox.'))"
# The page takes no Enter for a sheet that has only just come up.
LOOKED_AT_MS = 800


def open_review(page, url: str) -> None:
    """Open the page on one candidate at a time."""
    page.goto(f"{url}/#review")
    page.wait_for_selector(".review-root .slide.on", timeout=40_000)
    page.wait_for_function(SEEN)


def open_grid(page, url: str) -> None:
    """Open the page and go over to the grid, once its first sheet has been looked at."""
    open_review(page, url)
    page.keyboard.press("g")
    look_at_sheet(page)


def look_at_sheet(page) -> None:
    """Wait until every image of the sheet is there, and for as long as the page wants it looked at."""
    page.wait_for_function(SHEET_SEEN)
    page.wait_for_timeout(LOOKED_AT_MS)


def current(page) -> int:
    """The candidate that is shown alone."""
    return int(page.get_attribute(".slide.on", "data-candidate"))


def shows(page, candidate: int) -> None:
    """Wait until that candidate is shown alone."""
    page.wait_for_function(
        "(id) => document.querySelector('.slide.on')?.dataset.candidate === String(id)", arg=candidate
    )


def on_sheet(page) -> list[int]:
    """The candidates on the grid's sheet."""
    return page.eval_on_selector_all(".sheet .tile", "tiles => tiles.map((tile) => Number(tile.dataset.candidate))")


def press(page, *keys: str) -> None:
    """Press keys one after the other, each when the result before it can be seen."""
    for key in keys:
        if page.query_selector(".board:not([hidden]) .slide.on"):
            page.wait_for_function(SEEN)
        page.keyboard.press(key)


def delivered(page, timeout: float = 20_000) -> None:
    """Wait until the browser keeps no verdict that the server has not answered for."""
    page.wait_for_function(DELIVERED, timeout=timeout)


def decisions(workspace: Workspace) -> list[tuple[int, str, list[str]]]:
    """Every decision in the order of arrival: candidate, verdict, reasons."""
    with workspace.read() as session:
        rows = session.scalars(select(Decision).order_by(Decision.id))
        return [(row.candidate_id, row.verdict.value, row.reasons) for row in rows]


def standing(workspace: Workspace) -> dict[int, str]:
    """The verdict that stands on each candidate that has one."""
    with workspace.read() as session:
        return {row.candidate_id: row.verdict.value for row in session.scalars(select(CurrentVerdict))}
