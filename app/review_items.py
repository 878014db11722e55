"""A candidate as the review routes give it to the page."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel

from db.models import Kind
from review.queue import QueueItem

IMAGES = {"source": "raw.png", "mask": "mask.png", "result": "result.png", "thumbnail": "thumbnail.jpg"}


class ItemOut(BaseModel):
    """A candidate to look at, with one's own standing verdict."""

    id: int
    sha256: str
    class_index: int
    class_name: str
    source_name: str
    kind: Kind
    version: int
    drop: float
    residual: float
    rank: int
    area: float | None
    width: int
    height: int
    masked: bool
    verdict: str | None
    reasons: list[str]
    urls: dict[str, str]


def item_out(item: QueueItem) -> ItemOut:
    return ItemOut(**asdict(item), urls=image_urls(item.id, item.sha256))


def image_urls(candidate_id: int, sha256: str) -> dict[str, str]:
    """The addresses of a candidate's images."""
    return {key: f"/media/candidate/{candidate_id}/{sha256}/{name}" for key, name in IMAGES.items()}
