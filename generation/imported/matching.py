"""Which photo of the workspace an archive's image was made from: told by the photo's own bytes, or by its name.

Where the archive records the photo's sha256, only that counts: a photo of the same name with other bytes is another
photo. Where it does not, the name decides, or the ImageNet val number in it, among the val sources. Nothing is ever
matched by similarity, and no source is made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from sqlalchemy import select

from db.models import ImageClass, Kind, SourceImage, Split
from db.workspace import Workspace

_VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
_CHUNK = 900


class IncomingImage(Protocol):
    """An image of an archive. ``recorded`` is what the archive's metadata says of it, by column; it may be empty.

    ``name`` is its source's name, or the stem of its file; ``wnid`` is empty where the archive gives none.
    """

    file: str
    name: str
    wnid: str
    kind: Kind
    variant: int
    version: int
    recorded: dict[str, str]


class IncomingArchive(Protocol):
    """An archive whose sums and names were checked; ``identity`` is equal for the same images."""

    label: str
    identity: str
    recipe_hash: str
    recipe: dict
    images: Sequence[IncomingImage]

    def read(self, image: IncomingImage) -> bytes: ...

    def masks(self, image: IncomingImage) -> tuple[np.ndarray, np.ndarray] | None: ...


class Unmatched(NamedTuple):
    """An image that is left out, and why."""

    file: str
    reason: str


@dataclass
class Matches:
    """What :func:`match_sources` found: pairs, what was left out, and how many images the archive holds twice."""

    pairs: list[tuple[IncomingImage, SourceImage]] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)


def match_sources(workspace: Workspace, images: Sequence[IncomingImage]) -> Matches:
    """Find each image's photo. Each image is in ``pairs`` or, with a reason, in ``unmatched``."""
    with workspace.read() as session:
        wnids = dict(session.execute(select(ImageClass.class_index, ImageClass.wnid)).all())
        hashes = sorted({image.recorded["source_sha256"] for image in images if image.recorded})
        by_sha256: dict[str, list[SourceImage]] = {}
        for start in range(0, len(hashes), _CHUNK):
            found = select(SourceImage).where(SourceImage.sha256.in_(hashes[start : start + _CHUNK]))
            for source in session.scalars(found.order_by(SourceImage.id)):
                by_sha256.setdefault(source.sha256, []).append(source)
        by_name: dict[str, SourceImage] = {}
        if any(not image.recorded for image in images):
            for source in session.scalars(select(SourceImage).where(SourceImage.split == Split.VAL)):
                for name in _names_of(source, wnids):
                    by_name.setdefault(name, source)
        session.expunge_all()
    matches = Matches()
    for image in images:
        source = _by_bytes(image, by_sha256) if image.recorded else _by_name(image, by_name)
        if isinstance(source, str):
            matches.unmatched.append(Unmatched(image.file, source))
        elif image.wnid and image.wnid != wnids[source.class_index]:
            reason = f"The archive labels it {image.wnid}, the workspace its photo {wnids[source.class_index]}."
            matches.unmatched.append(Unmatched(image.file, reason))
        else:
            matches.pairs.append((image, source))
    return matches


def _names_of(source: SourceImage, wnids: dict[int, str]) -> Iterator[str]:
    """Every name that an archive may call the photo by; its own comes first."""
    yield source.name
    stem = source.name.rpartition("/")[2]
    yield f"{wnids[source.class_index]}/{stem}"
    number = _VAL_NUMBER.search(stem)
    if number:
        yield number[0]


def _by_bytes(image: IncomingImage, by_sha256: dict[str, list[SourceImage]]) -> SourceImage | str:
    same = by_sha256.get(image.recorded["source_sha256"], [])
    named = next((source for source in same if source.name == image.name), None)
    if not same:
        return f"Its photo {image.name} (sha256 {image.recorded['source_sha256'][:12]}) is not in this workspace."
    return named or same[0]


def _by_name(image: IncomingImage, by_name: dict[str, SourceImage]) -> SourceImage | str:
    number = _VAL_NUMBER.search(image.name)
    names = [f"{image.wnid}/{image.name}", image.name, number[0] if number else image.name]
    source = next((by_name[name] for name in names if name in by_name), None)
    return source or f"No val photo of this workspace is called {image.name}."
