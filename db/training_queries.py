"""What a training may take: a few-shot set's photos and what was made of them, all of the train split.

The one door between generation and training; :mod:`db.training_guard` checks whatever passes through it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session, aliased

from db.models import (
    Adjudication,
    AutoVerdict,
    Candidate,
    CurrentVerdict,
    FewShotSet,
    Kind,
    Recipe,
    SourceImage,
    TriageBand,
    Verdict,
)
from db.training_guard import check_lineage, check_pixels, check_recipes, fewshot_set, fewshot_sources, in_set

MIN_DROP = 5.0
TOP, LOW = "top", "low"


@dataclass(frozen=True)
class TrainingSource:
    """A photo of the set. ``background`` is its usable background candidate, whose mask says where the object is.

    Without one the published trainer takes the whole photo for the object. ``repeats`` is how many more times
    (0 or 1) the photo itself is shown so that its class comes up to the others' ID augmentations.
    """

    source: SourceImage
    background: Candidate | None
    repeats: int = 0


@dataclass(frozen=True)
class TrainingCandidate:
    """A candidate, the photo it was made of, and for an id_aug what its object was set on (None: noise)."""

    candidate: Candidate
    source: SourceImage
    ground: Candidate | None = None
    ground_source: SourceImage | None = None


@dataclass(frozen=True)
class TrainingData:
    """All that a few-shot set offers, each list by class and then by photo name.

    ``left_out`` counts, by reason, candidates of the recipes asked for that may not be used.
    """

    fewshot_set: FewShotSet
    sources: tuple[TrainingSource, ...]
    backgrounds: tuple[TrainingCandidate, ...]
    textures: tuple[TrainingCandidate, ...]
    id_augs: tuple[TrainingCandidate, ...]
    left_out: dict[str, int]

    def record(self) -> dict:
        """What went in, for a run's ``data``: the set's hash, and by kind how many and a sha256 over them."""
        photos = [f"{one.source.class_index} {one.source.sha256} {one.repeats}" for one in self.sources]
        record = {"fewshot_set": self.fewshot_set.content_hash, "sources": _counted(photos)}
        for kind in ("backgrounds", "textures", "id_augs"):
            rows = getattr(self, kind)
            record[kind] = _counted([f"{one.source.class_index} {one.candidate.result_sha256}" for one in rows])
        return record


def _counted(lines: list[str]) -> dict:
    return {"count": len(lines), "sha256": hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()}


def newest_backgrounds(recipe_id: int) -> Select:
    """Background candidates under a recipe, of each source the newest version only."""
    newer = aliased(Candidate)
    superseded = select(1).where(
        newer.source_id == Candidate.source_id,
        newer.recipe_id == Candidate.recipe_id,
        newer.kind == Candidate.kind,
        newer.version > Candidate.version,
    )
    return select(Candidate).where(
        Candidate.recipe_id == recipe_id, Candidate.kind == Kind.BACKGROUND, ~superseded.exists()
    )


def recipes_made_with(session: Session, kind: Kind, **options: object) -> list[Recipe]:
    """The recipes of that kind whose options have these values, newest first."""
    recipes = session.scalars(
        select(Recipe).where(Recipe.config["kind"].as_string() == kind).order_by(Recipe.id.desc())
    )
    return [r for r in recipes if all(r.config["options"].get(name) == value for name, value in options.items())]


def standing_verdicts(session: Session, candidate_ids: Select) -> dict[int, Verdict]:
    """Accept or reject by candidate, for those that have one.

    An adjudication goes before the annotators, of whom one reject outweighs any accepts; a confirmed triage
    band speaks only where no person has.
    """

    def pairs(query: Select) -> Sequence[tuple[int, Verdict]]:
        return session.execute(query).all()

    band = select(AutoVerdict.candidate_id, AutoVerdict.verdict).join(TriageBand, TriageBand.id == AutoVerdict.band_id)
    verdicts = dict(pairs(band.where(TriageBand.revoked_at.is_(None), AutoVerdict.candidate_id.in_(candidate_ids))))
    people = select(CurrentVerdict.candidate_id, CurrentVerdict.verdict)
    for verdict in (Verdict.ACCEPT, Verdict.REJECT):
        given = people.where(CurrentVerdict.verdict == verdict, CurrentVerdict.candidate_id.in_(candidate_ids))
        verdicts.update(pairs(given))
    final = select(Adjudication.candidate_id, Adjudication.verdict).where(Adjudication.candidate_id.in_(candidate_ids))
    latest = dict(pairs(final.order_by(Adjudication.id)))
    verdicts.update({key: verdict for key, verdict in latest.items() if verdict is not Verdict.UNDO})
    return verdicts


def training_candidates(
    session: Session,
    fewshot_set_id: int,
    *,
    background_recipe_id: int,
    texture_recipe_id: int | None = None,
    id_aug_recipe_id: int | None = None,
    min_drop: float = MIN_DROP,
) -> TrainingData:
    """What may be trained on. A recipe that is None leaves its kind out.

    Backgrounds: the newest version, accepted, or with a drop above ``min_drop`` and not rejected. Textures:
    not rejected, of the top part where their recipe splits them. Id_augs: not rejected, on a background that is
    not rejected. Both only where the mask they were made with is still their photo's newest.
    Raises :class:`UnknownFewShotSet`; :class:`ValInTraining` and :class:`OutsideFewShotSet` where any photo or
    candidate that they came from is a val photo's or not the set's; :class:`TrainingDataError` for a
    candidate that does not say what it came from, or recipes that do not belong together.
    """
    chosen = fewshot_set(session, fewshot_set_id)
    sources = {source.id: source for source in fewshot_sources(session, fewshot_set_id)}
    recipe_ids = [r for r in (background_recipe_id, texture_recipe_id, id_aug_recipe_id) if r is not None]
    check_recipes(session, chosen, background_recipe_id, texture_recipe_id, id_aug_recipe_id)
    mine = Candidate.source_id.in_(in_set(fewshot_set_id))
    backgrounds = list(session.scalars(newest_backgrounds(background_recipe_id).where(mine)))
    textures = _of_recipe(session, mine, Kind.TEXTURE, texture_recipe_id)
    id_augs = _of_recipe(session, mine, Kind.ID_AUG, id_aug_recipe_id)
    lineage = check_lineage(session, fewshot_set_id, [*backgrounds, *textures, *id_augs])
    check_pixels(session, fewshot_set_id, recipe_ids)
    ids = select(Candidate.id).where(mine)
    rules = _Rules(standing_verdicts(session, ids), {one.source_id: one.id for one in backgrounds}, min_drop)
    kept = {
        "backgrounds": [one for one in backgrounds if rules.background(one)],
        "textures": [one for one in textures if rules.texture(one)],
        "id_augs": [one for one in id_augs if rules.id_aug(one)],
    }
    usable = {one.source_id: one for one in kept["backgrounds"]}
    repeats = balancing_repeats(list(sources.values()), kept["id_augs"], chosen.seed)
    rows = {}
    for kind, candidates in kept.items():
        made = [_with_provenance(one, sources, lineage) for one in candidates]
        rows[kind] = tuple(sorted(made, key=lambda r: (r.source.class_index, r.source.name, r.candidate.variant)))
    return TrainingData(
        chosen,
        tuple(TrainingSource(one, usable.get(one.id), repeats.get(one.id, 0)) for one in sources.values()),
        **rows,
        left_out=dict(rules.left_out),
    )


def balancing_repeats(sources: Sequence[SourceImage], id_augs: Sequence[Candidate], seed: int) -> dict[int, int]:
    """Which photos are shown once more, by source id: the published balancing of the classes.

    A class with fewer ID augmentations than the one with most gets photos of its own repeated, each at most
    once, until it has as many or no photo is left. Which ones is drawn by ``seed``, not by their order.
    """
    counts = Counter(one.class_index for one in id_augs)
    most = max(counts.values(), default=0)
    repeats: dict[int, int] = {}
    for source in sorted(sources, key=lambda one: hashlib.sha256(f"{seed} {one.sha256}".encode()).digest()):
        if counts[source.class_index] < most:
            counts[source.class_index] += 1
            repeats[source.id] = 1
    return repeats


class _Rules:
    """Which candidates may be used, counting the others by reason."""

    def __init__(self, verdicts: dict[int, Verdict], newest: dict[int, int], min_drop: float) -> None:
        self._verdicts = verdicts
        self._newest = newest
        self._min_drop = min_drop
        self.left_out: Counter[str] = Counter()

    def background(self, one: Candidate) -> bool:
        weak = one.drop <= self._min_drop and self._verdicts.get(one.id) is not Verdict.ACCEPT
        return self._keep(one, {f"drop not above {self._min_drop:g}": weak})

    def texture(self, one: Candidate) -> bool:
        low = one.details.get("part", TOP) == LOW
        return self._keep(one, {"mask corrected since": self._outdated(one), "low part": low})

    def id_aug(self, one: Candidate) -> bool:
        ground = self._verdicts.get(one.details["background_candidate_id"]) is Verdict.REJECT
        return self._keep(one, {"mask corrected since": self._outdated(one), "its background was rejected": ground})

    def _outdated(self, one: Candidate) -> bool:
        return self._newest.get(one.source_id) != one.details["mask_candidate_id"]

    def _keep(self, one: Candidate, causes: dict[str, bool]) -> bool:
        causes = {"rejected": self._verdicts.get(one.id) is Verdict.REJECT, **causes}
        reason = next((name for name, holds in causes.items() if holds), None)
        if reason is not None:
            self.left_out[f"{one.kind}: {reason}"] += 1
        return reason is None


def _with_provenance(
    one: Candidate, sources: dict[int, SourceImage], lineage: dict[int, Candidate]
) -> TrainingCandidate:
    ground = lineage.get(one.details.get("background_candidate_id"))
    return TrainingCandidate(one, sources[one.source_id], ground, None if ground is None else sources[ground.source_id])


def _of_recipe(session: Session, mine: ColumnElement[bool], kind: Kind, recipe_id: int | None) -> list[Candidate]:
    if recipe_id is None:
        return []
    return list(
        session.scalars(select(Candidate).where(mine, Candidate.recipe_id == recipe_id, Candidate.kind == kind))
    )
