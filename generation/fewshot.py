"""Few-shot sets: a seeded sample of the train sources, recorded once and never of the val split.

A class's photos are put in an order by a hash of the seed and their own bytes, and the first ``shots`` are
taken. So the sample depends on the photos and the seed alone, not on when or in what order they were imported; and with
one seed the 1-shot set lies inside the 2-shot set, and so on, which makes results over shots comparable.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.orm import Session, aliased

from db.models import FewShotItem, FewShotSet, ImageClass, SourceImage, Split
from db.training_guard import membership_hash
from db.workspace import Workspace

SHOTS = (1, 2, 4, 8, 16)
SUMMARY_FORMAT = 1
_INSERT_ROWS = 2_000


class FewShotError(ValueError):
    """A few-shot set cannot be sampled as asked; the message says why."""


class NoTrainSources(FewShotError):
    """There is nothing to sample from."""


class Photo(NamedTuple):
    """What the draw needs to know of a source; a tuple, as there may be 1.3 million of them."""

    id: int
    name: str
    sha256: str
    class_index: int


@dataclass(frozen=True)
class FewShotResult:
    """A recorded set. ``is_new`` is False where the same shots, seed and photos were sampled before.

    ``short`` is the number of photos by wnid for classes that have fewer than ``shots``, ``missing`` the wnids of
    the classes without any, ``also_val`` the names of train photos passed over because the same bytes are a val
    source, ``duplicates`` how many were passed over as copies of another photo of their class.
    """

    set_id: int
    content_hash: str
    is_new: bool
    shots: int
    seed: int
    sources: int
    classes: int
    short: dict[str, int]
    missing: tuple[str, ...]
    also_val: tuple[str, ...]
    duplicates: int


def sample_fewshot(workspace: Workspace, shots: int, seed: int) -> FewShotResult:
    """Draw ``shots`` (1, 2, 4, 8 or 16) train photos of every class and record them as a set.

    A class with fewer gives all it has. Raises :class:`NoTrainSources`, or :class:`FewShotError` for
    other shots or a negative seed.
    """
    if shots not in SHOTS:
        raise FewShotError(f"shots must be one of {', '.join(map(str, SHOTS))}, not {shots}.")
    if seed < 0:
        raise FewShotError(f"seed must be 0 or more, not {seed}.")
    with workspace.read() as session:
        listed = select(ImageClass.class_index, ImageClass.wnid).order_by(ImageClass.class_index)
        wnids = dict(session.execute(listed).all())
        sources, also_val = _train_sources(session)
    by_class, duplicates = _by_class(sources)
    chosen = {index: sorted(photos, key=lambda one: _rank(seed, one))[:shots] for index, photos in by_class.items()}
    members = [one for photos in chosen.values() for one in photos]
    if not members:
        raise NoTrainSources(_why_none(also_val))
    summary = {
        "format": SUMMARY_FORMAT,
        "sources": len(members),
        "classes": len(chosen),
        "short": {wnids[index]: len(chosen[index]) for index in wnids if 0 < len(chosen.get(index, ())) < shots},
        "missing": [wnid for index, wnid in wnids.items() if index not in chosen],
        "also_val": also_val,
        "duplicates": duplicates,
    }
    content_hash = membership_hash(members)
    with workspace.write() as session:
        recorded, is_new = _record(session, shots, seed, content_hash, summary, members)
    return result_of(recorded, is_new=is_new)


def result_of(recorded: FewShotSet, *, is_new: bool = False) -> FewShotResult:
    """What was said of a set when it was sampled."""
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in recorded.summary.items()}
    facts.pop("format")
    return FewShotResult(recorded.id, recorded.content_hash, is_new, recorded.shots, recorded.seed, **facts)


def _rank(seed: int, source: Photo) -> bytes:
    return hashlib.sha256(f"{seed} {source.sha256}".encode()).digest()


def _train_sources(session: Session) -> tuple[list[Photo], list[str]]:
    """The train photos by name, and the names of those left out because their bytes are a val source too."""
    val = aliased(SourceImage)
    # A list and not a correlated EXISTS, for which SQLite would walk all val photos once for each train photo.
    in_val = SourceImage.sha256.in_(select(val.sha256).where(val.split == Split.VAL))
    columns = (SourceImage.id, SourceImage.name, SourceImage.sha256, SourceImage.class_index)
    query = select(*columns, in_val).where(SourceImage.split == Split.TRAIN).order_by(SourceImage.name)
    photos: list[Photo] = []
    also_val: list[str] = []
    for *photo, shared in session.execute(query):
        if shared:
            also_val.append(photo[1])
        else:
            photos.append(Photo(*photo))
    return photos, also_val


def _by_class(sources: list[Photo]) -> tuple[dict[int, list[Photo]], int]:
    """The photos by class, equal ones once (under the first name), and how many were left out for that."""
    photos: defaultdict[int, dict[str, Photo]] = defaultdict(dict)
    for source in sources:
        photos[source.class_index].setdefault(source.sha256, source)
    by_class = {index: list(photos[index].values()) for index in sorted(photos)}
    return by_class, len(sources) - sum(map(len, by_class.values()))


def _why_none(also_val: list[str]) -> str:
    if also_val:
        return (
            f"All {len(also_val)} train sources are val photos under another name, and val photos never train. "
            "Import photos of the training set."
        )
    return "There are no train sources to sample from. Import some: `launch.py import FOLDER --split train`."


def _record(
    session: Session, shots: int, seed: int, content_hash: str, summary: dict, members: list[Photo]
) -> tuple[FewShotSet, bool]:
    same = (FewShotSet.shots == shots) & (FewShotSet.seed == seed) & (FewShotSet.content_hash == content_hash)
    found = session.scalar(select(FewShotSet).where(same))
    if found is not None:
        return found, False
    recorded = FewShotSet(shots=shots, seed=seed, content_hash=content_hash, summary=summary)
    session.add(recorded)
    session.flush()
    rows = [{"set_id": recorded.id, "source_id": one.id} for one in members]
    for start in range(0, len(rows), _INSERT_ROWS):
        session.execute(insert(FewShotItem), rows[start : start + _INSERT_ROWS])
    return recorded, True
