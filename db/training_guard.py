"""The guard of the training data: whatever is trained on came from train photos of the few-shot set alone.

Candidates are followed back to the photos they came from, whatever a row says of itself; one val photo on the
way is an error, not a row to leave out, because something has put it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, FewShotItem, FewShotSet, Kind, Recipe, SourceImage, Split

NOISE_OPTION = 3
_CHUNK = 500


class TrainingDataError(RuntimeError):
    """The training data are not as they should be; the message names what and says what to do."""


class ValInTraining(TrainingDataError):
    """A val photo, or something made of one, was about to be trained on."""


class OutsideFewShotSet(TrainingDataError):
    """Something was made of a train photo that is not in the few-shot set: more shots than the set says."""


class UnknownFewShotSet(LookupError):
    """There is no few-shot set of that number."""


def fewshot_set(session: Session, set_id: int) -> FewShotSet:
    found = session.get(FewShotSet, set_id)
    if found is None:
        raise UnknownFewShotSet(f"There is no few-shot set {set_id}; `launch.py fewshot --list` shows those there are.")
    return found


def in_set(set_id: int) -> Select:
    """The ids of a set's sources, to be used as a subquery."""
    return select(FewShotItem.source_id).where(FewShotItem.set_id == set_id)


class Photo(Protocol):
    """What a set's hash covers of a source."""

    class_index: int
    sha256: str
    name: str


def membership_hash(sources: Iterable[Photo]) -> str:
    """sha256 over class, photo bytes and name of the sources, in whatever order they come: a set's content hash."""
    lines = sorted(f"{one.class_index} {one.sha256} {one.name}" for one in sources)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fewshot_sources(session: Session, set_id: int) -> list[SourceImage]:
    """The set's photos by class and name. Raises :class:`UnknownFewShotSet` and :class:`ValInTraining`.

    Also a photo whose very bytes are among the val sources under another name is refused, and (with
    :class:`TrainingDataError`) a set whose items are no longer those that were sampled.
    """
    chosen = fewshot_set(session, set_id)
    query = select(SourceImage).where(SourceImage.id.in_(in_set(set_id)))
    sources = list(session.scalars(query.order_by(SourceImage.class_index, SourceImage.name)))
    for source in sources:
        if source.split is not Split.TRAIN:
            raise ValInTraining(
                f"{source.name} is in few-shot set {set_id} but is a {source.split} source; sample a new set."
            )
    twin = aliased(SourceImage)
    shared = select(SourceImage).where(
        SourceImage.id.in_(in_set(set_id)),
        SourceImage.sha256.in_(select(twin.sha256).where(twin.split == Split.VAL)),
    )
    for source in session.scalars(shared.limit(1)):
        same = select(SourceImage.name).where(SourceImage.sha256 == source.sha256, SourceImage.split == Split.VAL)
        raise ValInTraining(
            f"{source.name} of few-shot set {set_id} is the very photo that is val source {session.scalar(same)}; "
            "sample a new set."
        )
    if membership_hash(sources) != chosen.content_hash:
        raise TrainingDataError(f"Few-shot set {set_id} no longer holds what was sampled; sample a new set.")
    return sources


def check_recipes(
    session: Session, chosen: FewShotSet, background_id: int, texture_id: int | None, id_aug_id: int | None
) -> None:
    base = session.get(Recipe, background_id)
    if base is None or "kind" in base.config:
        raise TrainingDataError(f"Recipe {background_id} is not one that removes objects; name such a recipe.")
    wanted = {"background_recipe": base.hash}
    for recipe_id, kind, options in (
        (texture_id, Kind.TEXTURE, wanted),
        (id_aug_id, Kind.ID_AUG, {**wanted, "fewshot_set": chosen.content_hash}),
    ):
        if recipe_id is None:
            continue
        config = getattr(session.get(Recipe, recipe_id), "config", {})
        if config.get("kind") != kind:
            raise TrainingDataError(f"Recipe {recipe_id} does not make {kind} candidates.")
        for name, value in options.items():
            if config["options"].get(name) != value:
                raise TrainingDataError(
                    f"The {kind} candidates of recipe {recipe_id} were made for another {name.replace('_', ' ')}; "
                    f"make them for this one ({value[:12]})."
                )


def _made_from(one: Candidate) -> Iterator[int]:
    """The candidates this one came from. Raises :class:`TrainingDataError` where it must say and does not."""
    if one.parent_id is not None:
        yield one.parent_id
    if one.kind is Kind.BACKGROUND:
        return
    needed = ["mask_candidate_id"]
    on_noise = one.details.get("option") == NOISE_OPTION and one.details.get("background_candidate_id") is None
    if one.kind is Kind.ID_AUG and not on_noise:
        needed.append("background_candidate_id")
    for name in needed:
        if not isinstance(one.details.get(name), int):
            raise TrainingDataError(
                f"Candidate {one.id} ({one.kind}) has no {name} in its details, so nobody knows what it was made of."
            )
        yield one.details[name]


def check_lineage(session: Session, set_id: int, candidates: Sequence[Candidate]) -> dict[int, Candidate]:
    """Follows the candidates back to the photos, all of which must be in the set; every candidate met, by id."""
    known: dict[int, Candidate] = {}
    came_to: dict[int, Candidate] = {one.id: one for one in candidates}
    frontier = list(candidates)
    while frontier:
        known.update((one.id, one) for one in frontier)
        for one in frontier:
            for parent in _made_from(one):
                came_to.setdefault(parent, came_to[one.id])
        missing = sorted(came_to.keys() - known.keys())
        frontier = [one for start in range(0, len(missing), _CHUNK) for one in _load(session, missing[start:][:_CHUNK])]
        for gone in set(missing) - {one.id for one in frontier}:
            child = came_to[gone]
            raise TrainingDataError(
                f"Candidate {child.id} ({child.kind}) was made with candidate {gone}, which is gone."
            )
    inside = set(session.scalars(in_set(set_id)))
    for one in known.values():
        if one.source_id not in inside:
            _refuse(session, set_id, came_to[one.id], one)
    return known


def _load(session: Session, ids: Sequence[int]) -> list[Candidate]:
    return list(session.scalars(select(Candidate).where(Candidate.id.in_(ids))))


def _refuse(session: Session, set_id: int, child: Candidate, parent: Candidate) -> None:
    source = session.get(SourceImage, parent.source_id)
    words = f"Candidate {child.id} ({child.kind}) was made with candidate {parent.id} of {source.name}, "
    if source.split is not Split.TRAIN:
        raise ValInTraining(f"{words}a {source.split} source: what tests never trains. Nothing was given out.")
    raise OutsideFewShotSet(f"{words}which is not in few-shot set {set_id}; make it anew for this set.")


def check_pixels(session: Session, set_id: int, recipe_ids: Sequence[int]) -> None:
    """A row may claim a train photo and yet show a val photo's pixels: those of a val candidate are refused."""
    other, photo = aliased(Candidate), aliased(SourceImage)
    for column in ("folder", "result_sha256"):
        same = (
            select(Candidate.id, Candidate.kind, other.id, photo.name)
            .join(other, getattr(other, column) == getattr(Candidate, column))
            .join(photo, photo.id == other.source_id)
            .where(Candidate.source_id.in_(in_set(set_id)), Candidate.recipe_id.in_(recipe_ids))
            .where(photo.split != Split.TRAIN)
        )
        for mine, kind, theirs, name in session.execute(same.limit(1)):
            raise ValInTraining(
                f"Candidate {mine} ({kind}) shows the pixels of candidate {theirs} of the val source {name}."
            )
