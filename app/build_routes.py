"""Builds as JSON: what a rule would take in at once, freezing it, the frozen ones, and what differs between two.

Errors are ``{"error": sentence}``; one about a rule also has ``field`` and, in an expression, ``position`` (from 0).
What-if answers a rule that cannot be used that way too, with 200: half of an expression is nothing out of the ordinary.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.build_facts import freeze_reviewed, refresh_class_kappas
from app.plain_route import PlainErrorRoute
from app.reviewer import Reviewer, reviewer_dependency
from db.models import Build, BuildItem, Candidate, Recipe, Role, SourceImage
from db.queries import active_recipe, class_names
from db.workspace import Workspace
from exports.builds import MAX_NOTE, BuildError, build_label, compare, find_build, list_builds
from exports.expression import MAX_LENGTH
from exports.fields import FIELDS, KAPPA_FIELD
from exports.loaded_facts import KeptFacts
from exports.rules import PRESETS, Cause, Rule, RuleError
from exports.what_if import BuildPreview, WhatIf, preview_and_what_if
from review.audit_report import audit_statement, build_audit

SAMPLE = 24
CHANGED_SAMPLE = 12
SHOWN_CLASSES = 10
PRESET_TEXTS = {
    "bg": "Bg: every candidate that nobody rejects",
    "bg_s": "Bg(S): those with a drop above 5",
}
CAUSE_TEXTS = {
    Cause.SUPERSEDED: "superseded by a newer version",
    Cause.REJECTED: "rejected in review",
    Cause.NOT_ACCEPTED: "not accepted yet",
    Cause.DROP: "drop too low",
    Cause.AREA: "object area out of bounds",
    Cause.RESIDUAL: "residual too high",
    Cause.EXPRESSION: "the expression does not hold",
}
OPERATORS = (
    ("< <= > >= == !=", "compare a field with a number, a text in quotes, or true or false"),
    ('in ("tench", "goldfish")', "one of several values; `not in` for none of them"),
    ("and, or, not, ( )", "join and group conditions; `and` binds tighter than `or`"),
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AgainstIn(_Strict):
    """What the rule is compared with: exactly one of a preset and a frozen build (bg-1, or bg for its newest)."""

    preset: str | None = Field(None, max_length=40)
    build: str | None = Field(None, max_length=60)


class WhatIfIn(_Strict):
    """A rule's fields, as a build's rule is stored; what is missing has its default."""

    rule: dict[str, Any] = Field(max_length=20)
    against: AgainstIn = AgainstIn(preset="bg")
    seed: int = Field(0, ge=0, le=2**31 - 1)


class FreezeIn(_Strict):
    """A name, a note for the card, and the rule."""

    name: str = Field(max_length=60)
    note: str = Field("", max_length=4 * MAX_NOTE)
    rule: dict[str, Any] = Field(max_length=20)


class ShownCandidate(BaseModel):
    """A candidate as a thumbnail."""

    id: int
    class_name: str
    source_name: str
    drop: float
    url: str


class CountOut(BaseModel):
    """Candidates left out for one cause."""

    cause: str
    text: str
    count: int


class ClassChangeOut(BaseModel):
    """A class with more or fewer members than before."""

    class_index: int
    class_name: str
    change: int


class BalanceOut(BaseModel):
    """Members a class: the spread, and ``class_counts[n]``, how many classes have ``n`` of them.

    ``empty_classes`` names up to ten classes without a member."""

    classes: int
    with_members: int
    smallest: int
    median: float
    largest: int
    class_counts: list[int]
    empty_classes: list[str]


class HistogramOut(BaseModel):
    """See :class:`exports.what_if.Histogram`."""

    edges: list[float]
    all: list[int]
    members: list[int]
    threshold: float | None


class ChangeOut(BaseModel):
    """From the reference to the rule."""

    reference: str
    before: int
    entered: int
    left: int
    classes: list[ClassChangeOut]
    entered_sample: list[ShownCandidate]
    left_sample: list[ShownCandidate]


class WhatIfOut(BaseModel):
    """What freezing the rule would give now."""

    rule_in_words: str
    candidates: int
    members: int
    excluded: list[CountOut]
    balance: BalanceOut
    histogram: HistogramOut
    sample: list[ShownCandidate]
    change: ChangeOut


class RefusedOut(BaseModel):
    """A rule that cannot be used: what is wrong, with which field, and at which character of an expression."""

    error: str
    field: str
    position: int | None


class FrozenOut(BaseModel):
    """The build that a freeze made; ``is_new`` is false when the newest of that name already was the same."""

    label: str
    images: int
    content_hash: str
    is_new: bool


class BuildOut(BaseModel):
    """A frozen build in the list; ``statement`` is what its audit says."""

    label: str
    images: int
    content_hash: str
    rule: dict
    rule_in_words: str
    statement: str
    note: str
    parts: dict[str, int]
    recipe_hash: str
    created_by: str
    created_at: dt.datetime


class ChoicesOut(BaseModel):
    """What the page offers. ``ranges`` are the least and the greatest of what is there, empty without candidates."""

    presets: list[dict]
    fields: list[dict]
    operators: list[tuple[str, str]]
    expression_length: int
    candidates: int
    ranges: dict[str, tuple[float, float]]


class ClassComparedOut(BaseModel):
    """One class of a comparison."""

    class_index: int
    class_name: str
    entered: int
    left: int
    changed: int


class ComparedOut(BaseModel):
    """From build ``before`` to build ``after``, by source photo; ``changed`` photos have another image."""

    before: str
    after: str
    images_before: int
    images_after: int
    entered: int
    left: int
    changed: int
    unchanged: int
    classes: list[ClassComparedOut]
    entered_sample: list[ShownCandidate]
    left_sample: list[ShownCandidate]
    changed_sample: list[ShownCandidate]


def build_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/builds``, for admins; ``current_user`` gives the user's id (a FastAPI dependency)."""
    router = APIRouter(prefix="/api/builds", route_class=PlainErrorRoute)
    asking = Depends(_admin(reviewer_dependency(workspace, current_user)))
    kept = KeptFacts(workspace)

    @router.get("/choices")
    def choices(who: Reviewer = asking) -> ChoicesOut:
        with workspace.read() as session:
            return _choices(session)

    @router.get("")
    def builds(who: Reviewer = asking) -> list[BuildOut]:
        with workspace.read() as session:
            newest_first = sorted(list_builds(session), key=lambda build: build.id, reverse=True)
            return [_build_out(session, build) for build in newest_first]

    @router.post("/what-if")
    def what_if(given: WhatIfIn, who: Reviewer = asking) -> WhatIfOut | RefusedOut:
        try:
            rule = _rule(given.rule)
        except RuleError as error:
            return _refused(error)
        recipe = _recipe(workspace)
        _know_kappas(workspace, rule, recipe)
        with workspace.read() as session:
            reference, before = _reference(session, given.against)
            seen, change = preview_and_what_if(
                session, recipe, before, rule, sample_size=SAMPLE, seed=given.seed, source=kept
            )
            return _what_if_out(session, rule, seen, change, reference)

    @router.post("", response_model=FrozenOut)
    def freeze_build(given: FreezeIn, who: Reviewer = asking) -> FrozenOut | JSONResponse:
        try:
            rule = _rule(given.rule)
            _know_kappas(workspace, rule, _recipe(workspace))
            frozen = freeze_reviewed(workspace, given.name.strip(), rule, created_by=who.name, note=given.note)
        except RuleError as error:
            return JSONResponse(_refused(error).model_dump(), 422)
        except BuildError as error:
            raise HTTPException(422, str(error)) from error
        build = frozen.build
        return FrozenOut(
            label=build_label(build), images=build.item_count, content_hash=build.content_hash, is_new=frozen.is_new
        )

    @router.get("/compare")
    def compare_two(
        before: str = Query(max_length=60), after: str = Query(max_length=60), who: Reviewer = asking
    ) -> ComparedOut:
        with workspace.read() as session:
            return _compared(session, _find(session, before), _find(session, after))

    return router


def _admin(reviewer: Callable[..., Reviewer]) -> Callable[..., Reviewer]:
    def allowed(who: Reviewer = Depends(reviewer)) -> Reviewer:  # noqa: B008 - how FastAPI declares a dependency
        who.check(Role.ADMIN, "A build")
        return who

    return allowed


def _rule(values: dict[str, Any]) -> Rule:
    try:
        return Rule.from_json(values)
    except TypeError as error:
        raise RuleError("rule", f"has a value that cannot be used ({error}).") from error


def _refused(error: RuleError) -> RefusedOut:
    return RefusedOut(error=str(error), field=error.field, position=error.position)


def _recipe(workspace: Workspace) -> Recipe:
    with workspace.read() as session:
        recipe = active_recipe(session)
    if recipe is None:
        raise HTTPException(409, "There is no recipe yet: generate candidates first, then choose a build from them.")
    return recipe


def _know_kappas(workspace: Workspace, rule: Rule, recipe: Recipe) -> None:
    if KAPPA_FIELD in rule.fields_used():
        refresh_class_kappas(workspace, recipe)


def _find(session: Session, reference: str) -> Build:
    try:
        return find_build(session, reference)
    except BuildError as error:
        raise HTTPException(404, str(error)) from error


def _reference(session: Session, against: AgainstIn) -> tuple[str, Rule | Build]:
    if (against.preset is None) == (against.build is None):
        raise HTTPException(422, "against: name exactly one of preset and build.")
    if against.build is not None:
        build = _find(session, against.build)
        return build_label(build), build
    if against.preset not in PRESETS:
        raise HTTPException(422, f"against: the presets are {', '.join(PRESETS)}.")
    return against.preset, PRESETS[against.preset]


def _choices(session: Session) -> ChoicesOut:
    recipe = active_recipe(session)
    ranges: dict[str, tuple[float, float]] = {}
    count = 0
    if recipe is not None:
        columns = {"drop": Candidate.drop, "residual": Candidate.residual, "area": Candidate.area}
        ends = [end(column) for column in columns.values() for end in (func.min, func.max)]
        count, *values = session.execute(
            select(func.count(), *ends).select_from(Candidate).where(Candidate.recipe_id == recipe.id)
        ).one()
        if count:
            ranges = {name: (values[2 * at], values[2 * at + 1]) for at, name in enumerate(columns)}
    return ChoicesOut(
        presets=[
            {"name": name, "text": PRESET_TEXTS[name], "rule": rule.to_json(), "in_words": rule.describe()}
            for name, rule in PRESETS.items()
        ],
        fields=[
            {"name": name, "type": field.type, "meaning": field.meaning, "values": list(field.values)}
            for name, field in FIELDS.items()
        ],
        operators=list(OPERATORS),
        expression_length=MAX_LENGTH,
        candidates=count,
        ranges=ranges,
    )


def _build_out(session: Session, build: Build) -> BuildOut:
    return BuildOut(
        label=build_label(build),
        images=build.item_count,
        content_hash=build.content_hash,
        rule=build.rule,
        rule_in_words=Rule.from_json(build.rule).describe(),
        statement=audit_statement(build_audit(session, build)),
        note=build.summary.get("note", ""),
        parts=build.summary.get("parts", {}),
        recipe_hash=build.summary.get("recipe_hash", ""),
        created_by=build.created_by,
        created_at=build.created_at,
    )


def _what_if_out(session: Session, rule: Rule, seen: BuildPreview, change: WhatIf, reference: str) -> WhatIfOut:
    names = class_names(session)
    entered, left = (ids[:CHANGED_SAMPLE] for ids in (change.entered_sample, change.left_sample))
    shown = _shown(session, {*seen.sample, *entered, *left}, names)
    most = sorted(change.classes.items(), key=lambda item: (-abs(item[1]), item[0]))[:SHOWN_CLASSES]
    histogram = seen.histogram
    return WhatIfOut(
        rule_in_words=rule.describe(),
        candidates=seen.candidates,
        members=seen.members,
        excluded=[
            CountOut(cause=cause, text=CAUSE_TEXTS[cause], count=count)
            for cause, count in seen.excluded.items()
            if count
        ],
        balance=_balance(seen, names),
        histogram=HistogramOut(
            edges=list(histogram.edges),
            all=list(histogram.all),
            members=list(histogram.members),
            threshold=rule.drop_above if rule.drop_above is not None else rule.drop_at_least,
        ),
        sample=[shown[i] for i in seen.sample],
        change=ChangeOut(
            reference=reference,
            before=change.before,
            entered=change.entered,
            left=change.left,
            classes=[
                ClassChangeOut(class_index=index, class_name=names.get(index, ""), change=count)
                for index, count in most
            ],
            entered_sample=[shown[i] for i in entered],
            left_sample=[shown[i] for i in left],
        ),
    )


def _balance(seen: BuildPreview, names: dict[int, str]) -> BalanceOut:
    classes = seen.classes
    sizes = [0] * (classes.largest + 1)
    for count in classes.counts.values():
        sizes[count] += 1
    sizes[0] = len(classes.empty)
    return BalanceOut(
        classes=classes.classes,
        with_members=len(classes.counts),
        smallest=classes.smallest,
        median=classes.median,
        largest=classes.largest,
        class_counts=sizes,
        empty_classes=[names[index] for index in classes.empty[:SHOWN_CLASSES]],
    )


def _shown(session: Session, ids: Iterable[int], names: dict[int, str]) -> dict[int, ShownCandidate]:
    columns = (Candidate.id, Candidate.class_index, Candidate.drop, Candidate.result_sha256, SourceImage.name)
    query = select(*columns).join(SourceImage, SourceImage.id == Candidate.source_id)
    return {
        row.id: ShownCandidate(
            id=row.id,
            class_name=names.get(row.class_index, ""),
            source_name=row.name,
            drop=row.drop,
            url=f"/media/candidate/{row.id}/{row.result_sha256}/thumbnail.jpg",
        )
        for row in session.execute(query.where(Candidate.id.in_(set(ids))))
    }


def _compared(session: Session, before: Build, after: Build) -> ComparedOut:
    found = compare(session, before, after)
    names = class_names(session)

    def sample(build: Build, sources: tuple[str, ...]) -> list[ShownCandidate]:
        chosen = sorted(random.Random(0).sample(sources, min(CHANGED_SAMPLE, len(sources))))
        query = select(BuildItem.candidate_id).where(BuildItem.build_id == build.id, BuildItem.source_name.in_(chosen))
        ids = list(session.scalars(query.order_by(BuildItem.position)))
        shown = _shown(session, ids, names)
        return [shown[i] for i in ids]

    return ComparedOut(
        before=build_label(before),
        after=build_label(after),
        images_before=before.item_count,
        images_after=after.item_count,
        entered=len(found.entered),
        left=len(found.left),
        changed=len(found.changed),
        unchanged=found.unchanged,
        classes=[
            ClassComparedOut(class_index=index, class_name=names.get(index, ""), entered=one, left=two, changed=three)
            for index, (one, two, three) in found.classes.items()
        ],
        entered_sample=sample(after, found.entered),
        left_sample=sample(before, found.left),
        changed_sample=sample(after, found.changed),
    )
