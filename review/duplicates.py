"""Near-duplicates by perceptual hash: candidates that look like each other, another source, or still like their own.

A group is what hangs together through steps of at most ``distance`` bits. A candidate that hardly differs from its own
source probably still shows the object; one that looks like another source may be a leak between images.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, DuplicateMember, Kind, SourceImage, utcnow
from db.queries import get_meta, is_superseded, set_meta
from db.workspace import Workspace
from review.near_hashes import MAX_BITS, connected_groups, nearest
from review.queue import QueueItem, items_by_id

DISTANCE = 6
OWN_DISTANCE = 2
MAX_GROUPS = 50
MAX_MEMBERS = 200
WRITE_ROWS = 2_000


class Likeness(enum.StrEnum):
    """Which groups: all, with several candidates, or with one that looks like another or like its own source."""

    ALL = "all"
    CANDIDATES = "candidates"
    OTHER_SOURCE = "other_source"
    OWN_SOURCE = "own_source"


@dataclass(frozen=True)
class HashedCandidate:
    """A candidate and its result's perceptual hash as a 64-bit number."""

    id: int
    source_id: int
    folder: str
    phash: int


@dataclass(frozen=True)
class Member:
    """A candidate of a group, as ``duplicate_members`` stores it.

    ``distance`` is in bits: to the source ``source_id`` where there is one, else to the nearest other candidate.
    """

    candidate_id: int
    group_id: int
    distance: int
    source_id: int | None


@dataclass(frozen=True)
class LikeSource:
    """The source that a candidate looks like."""

    source_id: int
    name: str
    sha256: str
    is_own: bool
    distance: int


@dataclass(frozen=True)
class GroupMember:
    """A candidate of a group with one's own verdict on it. ``distance`` is to the nearest other candidate of the group,
    in bits; None when it is alone."""

    item: QueueItem
    distance: int | None
    source: LikeSource | None


@dataclass(frozen=True)
class Group:
    """Candidates that look alike, the lowest id first; a single one looks like a source.

    ``size`` counts all, ``members`` holds at most :data:`MAX_MEMBERS`.
    """

    id: int
    size: int
    members: tuple[GroupMember, ...]


@dataclass(frozen=True)
class GroupPage:
    """Some groups in order of id, and the id to go on after (None at the end)."""

    groups: list[Group]
    cursor: int | None


def hashed_candidates(session: Session, recipe_id: int) -> list[HashedCandidate]:
    """The recipe's background candidates in their newest version, by id."""
    query = (
        select(Candidate.id, Candidate.source_id, Candidate.folder, Candidate.phash)
        .where(Candidate.recipe_id == recipe_id, Candidate.kind == Kind.BACKGROUND, ~is_superseded())
        .order_by(Candidate.id)
    )
    return [HashedCandidate(*row[:3], int(row[3], 16)) for row in session.execute(query)]


def find_duplicates(
    candidates: Sequence[HashedCandidate],
    source_hashes: dict[int, int],
    distance: int = DISTANCE,
    own_distance: int = OWN_DISTANCE,
) -> list[Member]:
    """The members of every group, by candidate id. ``source_hashes`` maps a source's id to the hash of its photo.

    A source counts when it is at most ``distance`` (``own_distance`` for the candidate's own) bits away; of several
    the nearest, another one before the own. ValueError for a distance outside 0 to 15.
    """
    ids = np.array([candidate.id for candidate in candidates], np.int64)
    hashes = np.array([candidate.phash for candidate in candidates], np.uint64)
    groups = connected_groups(hashes, distance)
    own_place = np.arange(len(ids))
    _, near_bits = nearest(hashes, hashes, distance, not_same=own_place)

    source_ids = np.array(sorted(source_hashes), np.int64)
    photos = np.array([source_hashes[key] for key in source_ids.tolist()], np.uint64)
    place_of = {source_id: place for place, source_id in enumerate(source_ids.tolist())}
    own = np.array([place_of.get(candidate.source_id, -1) for candidate in candidates], np.int64)
    other, other_bits = nearest(hashes, photos, distance, not_same=own)
    members = []
    for row, candidate in enumerate(candidates):
        likeness = [] if other[row] < 0 else [(int(other_bits[row]), 0, int(source_ids[other[row]]))]
        if own[row] >= 0:
            bits = (candidate.phash ^ source_hashes[candidate.source_id]).bit_count()
            if bits <= own_distance:
                likeness.append((bits, 1, candidate.source_id))
        if not likeness and near_bits[row] < 0:
            continue
        bits, _, source_id = min(likeness) if likeness else (int(near_bits[row]), 0, None)
        members.append(Member(candidate.id, int(ids[groups[row]]), bits, source_id))
    return members


def store_duplicates(workspace: Workspace, recipe_id: int, members: Sequence[Member], found_with: dict) -> None:
    """Put these groups in the place of the recipe's former ones. ``found_with`` (JSON) is kept beside them."""
    of_recipe = select(Candidate.id).where(Candidate.recipe_id == recipe_id)
    rows = [asdict(member) for member in members]
    with workspace.write() as session:
        session.execute(delete(DuplicateMember).where(DuplicateMember.candidate_id.in_(of_recipe)))
        for start in range(0, len(rows), WRITE_ROWS):
            session.execute(insert(DuplicateMember), rows[start : start + WRITE_ROWS])
        set_meta(session, _meta_key(recipe_id), json.dumps({**found_with, "at": utcnow().isoformat()}))


def duplicates_found_with(session: Session, recipe_id: int) -> dict | None:
    """What the last search of the recipe was made with and when; None before the first."""
    stored = get_meta(session, _meta_key(recipe_id))
    return None if stored is None else json.loads(stored)


def _meta_key(recipe_id: int) -> str:
    return f"duplicates_{recipe_id}"


def duplicate_groups(
    session: Session,
    recipe_id: int,
    user_id: int,
    *,
    likeness: Likeness = Likeness.ALL,
    only_open: bool = False,
    cursor: int = 0,
    limit: int = 20,
) -> GroupPage:
    """Groups after the id ``cursor``. ``only_open``: those with a candidate on which the user has no verdict."""
    limit = max(1, min(limit, MAX_GROUPS))
    query = (
        _members(recipe_id)
        .with_only_columns(DuplicateMember.group_id)
        .where(DuplicateMember.group_id > cursor)
        .group_by(DuplicateMember.group_id)
        .order_by(DuplicateMember.group_id)
        .limit(limit + 1)
    )
    match likeness:
        case Likeness.CANDIDATES:
            query = query.having(func.count() > 1)
        case Likeness.OTHER_SOURCE:
            query = query.where(DuplicateMember.source_id != Candidate.source_id)
        case Likeness.OWN_SOURCE:
            query = query.where(DuplicateMember.source_id == Candidate.source_id)
    if only_open:
        judged = exists().where(CurrentVerdict.candidate_id == Candidate.id, CurrentVerdict.user_id == user_id)
        waiting = aliased(DuplicateMember)
        open_member = select(waiting.group_id).join(Candidate, Candidate.id == waiting.candidate_id).where(~judged)
        query = query.where(DuplicateMember.group_id.in_(open_member))
    ids = list(session.scalars(query))
    shown = ids[:limit]
    groups = _load_groups(session, recipe_id, user_id, shown)
    return GroupPage([groups[group_id] for group_id in shown], shown[-1] if len(ids) > limit else None)


def _members(recipe_id: int):
    return (
        select(DuplicateMember)
        .join(Candidate, Candidate.id == DuplicateMember.candidate_id)
        .where(Candidate.recipe_id == recipe_id, ~is_superseded())
    )


def _load_groups(session: Session, recipe_id: int, user_id: int, group_ids: list[int]) -> dict[int, Group]:
    query = (
        _members(recipe_id)
        .with_only_columns(DuplicateMember, Candidate.phash, Candidate.source_id, SourceImage.name, SourceImage.sha256)
        .outerjoin(SourceImage, SourceImage.id == DuplicateMember.source_id)
        .where(DuplicateMember.group_id.in_(group_ids))
        .order_by(DuplicateMember.candidate_id)
    )
    by_group: dict[int, list] = {}
    for row in session.execute(query):
        by_group.setdefault(row[0].group_id, []).append(row)
    shown = [row[0].candidate_id for rows in by_group.values() for row in rows[:MAX_MEMBERS]]
    items = {item.id: item for item in items_by_id(session, shown, user_id)}
    groups = {}
    for group_id, rows in by_group.items():
        hashes = np.array([int(row.phash, 16) for row in rows], np.uint64)
        shown_rows = rows[:MAX_MEMBERS]
        _, bits = nearest(hashes[:MAX_MEMBERS], hashes, MAX_BITS, not_same=np.arange(len(shown_rows)))
        members = [
            GroupMember(items[row[0].candidate_id], None if near < 0 else near, _like_source(row))
            for row, near in zip(shown_rows, bits.tolist(), strict=True)
        ]
        groups[group_id] = Group(group_id, len(rows), tuple(members))
    return groups


def _like_source(row) -> LikeSource | None:
    member, _, own_source_id, name, sha256 = row
    if member.source_id is None:
        return None
    return LikeSource(member.source_id, name, sha256, member.source_id == own_source_id, member.distance)


def group_counts(session: Session, recipe_id: int) -> dict[Likeness, int]:
    """How many groups there are of each sort; one group may count under several."""
    sizes = _members(recipe_id).with_only_columns(func.count().label("members")).group_by(DuplicateMember.group_id)
    sizes = sizes.subquery()
    several = session.scalar(select(func.count()).select_from(sizes).where(sizes.c.members > 1))
    distinct = _members(recipe_id).with_only_columns(func.count(DuplicateMember.group_id.distinct()))
    is_own = DuplicateMember.source_id == Candidate.source_id
    return {
        Likeness.ALL: session.scalar(distinct) or 0,
        Likeness.CANDIDATES: several or 0,
        Likeness.OTHER_SOURCE: session.scalar(distinct.where(~is_own)) or 0,
        Likeness.OWN_SOURCE: session.scalar(distinct.where(is_own)) or 0,
    }
