"""Builds: freeze what a rule takes in under a name and number, find it again, compare two.

A frozen build never changes: the database refuses to update or delete its rows, and everything an
archive says of it (counts, verdicts, reasons) is taken from what was recorded at the freeze.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Select, func, insert, select
from sqlalchemy.orm import Session

from db.models import (
    Build,
    BuildItem,
    Candidate,
    CurrentVerdict,
    Decision,
    Recipe,
    SourceImage,
    State,
    Verdict,
)
from db.queries import CLASS_LIST_SHA256, active_recipe, get_meta, is_superseded, state_counts
from db.workspace import Workspace
from exports.rules import Rule
from exports.splits import part_of
from exports.verdicts import decided_by, has_verdict, verdict_count
from exports.what_if import class_counts, preview

SUMMARY_FORMAT = 1
MAX_NOTE = 500
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_REFERENCE = re.compile(r"([a-z][a-z0-9_]{0,39})(?:-v?([1-9][0-9]{0,8}))?")
_INSERT_ROWS = 2_000


class BuildError(RuntimeError):
    """A build cannot be made or found; the message says what to do."""


class EmptyBuild(BuildError):
    """The rule takes in no candidate."""


class UnknownBuild(BuildError):
    """No build has that name or number; the message names those there are."""


@dataclass(frozen=True)
class Frozen:
    """A freeze's result: ``is_new`` is False when the newest build of that name already was the same."""

    build: Build
    is_new: bool


@dataclass(frozen=True)
class Comparison:
    """Source names that entered, left, or stayed with another image, from build a to b; each list is sorted.

    ``classes`` counts the entered, left and changed of each class index that has any.
    """

    entered: tuple[str, ...]
    left: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: int
    classes: dict[int, tuple[int, int, int]]


def build_label(build: Build) -> str:
    """How a build is called in file names and on the page: ``bg-v1``."""
    return f"{build.name}-v{build.number}"


def freeze(
    workspace: Workspace,
    name: str,
    rule: Rule,
    *,
    recipe: Recipe | None = None,
    created_by: str = "",
    note: str = "",
    review: Callable[[Session, Recipe, dict[int, str]], dict] | None = None,
) -> Frozen:
    """Write down the members of ``rule`` as the next build called ``name``, in one transaction.

    ``recipe`` defaults to the active one. ``note`` is kept in the summary and stands on the card. ``review`` gives,
    within the transaction, what is known of the annotators' agreement, as JSON for the summary; it is told their
    pseudonyms by user id. When the newest build of that name has the same rule, recipe and content hash, it is
    returned instead of a copy. Raises :class:`EmptyBuild` when the rule takes in nothing, and :class:`BuildError`
    for a bad name or note or when there is no recipe.
    """
    note = " ".join(note.split())
    if len(note) > MAX_NOTE:
        raise BuildError(f"A build's note has {MAX_NOTE} characters at most, not {len(note)}.")
    if not _NAME.fullmatch(name):
        raise BuildError(
            f"A build's name is 1 to 40 lower-case letters, digits and _, starting with a letter; {name!r} is not."
        )
    with workspace.write() as session:
        recipe = recipe or active_recipe(session)
        if recipe is None:
            raise BuildError("There is no recipe yet: generate candidates first, then freeze a build.")
        items = _items(session, recipe, rule)
        if not items:
            raise EmptyBuild(_why_empty(session, recipe, rule))
        content_hash = hash_items(
            (item["source_name"], item["class_index"], item["kind"], item["version"], item["result_sha256"])
            for item in items
        )
        newest = session.scalar(select(Build).where(Build.name == name).order_by(Build.number.desc()).limit(1))
        if (
            newest is not None
            and newest.content_hash == content_hash
            and Rule.from_json(newest.rule) == rule
            and newest.recipe_id == recipe.id
        ):
            return Frozen(newest, is_new=False)
        build = Build(
            name=name,
            number=1 if newest is None else newest.number + 1,
            rule=rule.to_json(),
            recipe_id=recipe.id,
            last_decision_id=session.scalar(select(func.max(Decision.id))) or 0,
            item_count=len(items),
            content_hash=content_hash,
            summary={**_summary(session, recipe, rule, items, review), **({"note": note} if note else {})},
            created_by=created_by,
        )
        session.add(build)
        session.flush()
        for start in range(0, len(items), _INSERT_ROWS):
            session.execute(
                insert(BuildItem),
                [
                    {"build_id": build.id, "position": position, **_without(item, "kind", "version")}
                    for position, item in enumerate(items[start : start + _INSERT_ROWS], start)
                ],
            )
    return Frozen(build, is_new=True)


def hash_items(items: Iterable[tuple[str, int, str, int, str]]) -> str:
    """sha256 over one JSON array a line: source name, class index, kind, version, the PNG's sha256.

    The items must come sorted by class index, then source name. The archive's metadata.csv holds all
    five, so that anybody can compute the hash again.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, separators=(",", ":"), ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def list_builds(session: Session) -> list[Build]:
    """Every build, by name and then number."""
    return list(session.scalars(select(Build).order_by(Build.name, Build.number)))


def find_build(session: Session, reference: str) -> Build:
    """The build called ``bg`` (its newest), ``bg-2`` or ``bg-v2``. Raises :class:`UnknownBuild`."""
    match = _REFERENCE.fullmatch(reference)
    if match is not None:
        query = select(Build).where(Build.name == match[1]).order_by(Build.number.desc()).limit(1)
        if match[2] is not None:
            query = query.where(Build.number == int(match[2]))
        build = session.scalar(query)
        if build is not None:
            return build
    existing = ", ".join(build_label(build) for build in list_builds(session))
    raise UnknownBuild(
        f"There is no build {reference!r}. "
        + (f"There are: {existing}." if existing else "None is frozen yet; freeze one first.")
    )


def compare(session: Session, a: Build, b: Build) -> Comparison:
    """What changed from build ``a`` to build ``b``, by source name."""
    before, after = _images(session, a), _images(session, b)
    both = before.keys() & after.keys()
    entered, left = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    changed = sorted(name for name in both if before[name] != after[name])
    tallies = [
        Counter(images[name][1] for name in names)
        for images, names in ((after, entered), (before, left), (after, changed))
    ]
    return Comparison(
        entered=tuple(entered),
        left=tuple(left),
        changed=tuple(changed),
        unchanged=len(both) - len(changed),
        classes={index: tuple(tally[index] for tally in tallies) for index in sorted(set().union(*tallies))},
    )


def _images(session: Session, build: Build) -> dict[str, tuple[str, int]]:
    """Sha256 and class of the members by source name."""
    query = select(BuildItem.source_name, BuildItem.result_sha256, BuildItem.class_index)
    return {
        name: (sha256, index) for name, sha256, index in session.execute(query.where(BuildItem.build_id == build.id))
    }


def _without(item: dict, *names: str) -> dict:
    return {key: value for key, value in item.items() if key not in names}


def _items(session: Session, recipe: Recipe, rule: Rule) -> list[dict]:
    """The members as item values, sorted here: a database's own order of text depends on its locale."""
    query = (
        select(
            Candidate.id.label("candidate_id"),
            SourceImage.name.label("source_name"),
            Candidate.class_index,
            Candidate.kind,
            Candidate.version,
            Candidate.result_sha256,
            Candidate.drop,
            Candidate.residual,
            Candidate.area,
            verdict_count(Verdict.ACCEPT).label("accepts"),
            verdict_count(Verdict.REJECT).label("rejects"),
            decided_by(auto=rule.auto).label("decided_by"),
            SourceImage.sha256.label("part"),
        )
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .where(rule.where(recipe.id))
    )
    items = [{**row, "part": part_of(row["part"])} for row in session.execute(query).mappings()]
    items.sort(key=lambda item: (item["class_index"], item["source_name"]))
    return items


def _why_empty(session: Session, recipe: Recipe, rule: Rule) -> str:
    seen = preview(session, recipe, rule, sample_size=0)
    if not seen.candidates:
        return (
            f"There are no {rule.kind} candidates of {rule.split} sources under recipe {recipe.hash[:12]}: "
            "generate some first, or choose another recipe."
        )
    causes = ", ".join(f"{count} by {cause}" for cause, count in seen.excluded.items() if count)
    return (
        f"The rule takes in none of {seen.candidates} candidates (left out: {causes}). "
        "Loosen its bounds, or review more candidates."
    )


def _summary(
    session: Session,
    recipe: Recipe,
    rule: Rule,
    items: list[dict],
    review: Callable[[Session, Recipe, dict[int, str]], dict] | None,
) -> dict:
    """The counts as they stand at the freeze, as JSON; annotators only as annotator-1, annotator-2, ..."""
    states = state_counts(session, recipe, rule.split)
    population = (rule.population(recipe.id), ~is_superseded())

    def of_population(query: Select) -> Select:
        return query.join(SourceImage, SourceImage.id == Candidate.source_id).where(*population)

    sides = (
        has_verdict(Verdict.REJECT, auto=rule.auto).label("rejected"),
        has_verdict(Verdict.ACCEPT, auto=rule.auto).label("accepted"),
    )
    tally = session.execute(
        of_population(select(*sides, func.count()).select_from(Candidate)).group_by("rejected", "accepted")
    )
    verdicts = {"accepted": 0, "rejected": 0, "undecided": 0, "disagreed": 0}
    for is_rejected, is_accepted, count in tally:
        verdicts["rejected" if is_rejected else "accepted" if is_accepted else "undecided"] += count
        if is_rejected and is_accepted:
            verdicts["disagreed"] += count
    causes = session.execute(
        select(rule.cause().label("cause"), func.count())
        .select_from(Candidate)
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .where(rule.population(recipe.id))
        .group_by("cause")
    )
    reasons: Counter[str] = Counter()
    votes: dict[int, Counter[str]] = {}
    standing = of_population(
        select(CurrentVerdict.user_id, CurrentVerdict.verdict, CurrentVerdict.reasons).join(
            Candidate, Candidate.id == CurrentVerdict.candidate_id
        )
    )
    for user_id, verdict, given in session.execute(standing):
        votes.setdefault(user_id, Counter())[verdict] += 1
        if verdict == Verdict.REJECT:
            reasons.update(str(reason) for reason in given)
    classes = class_counts(session, Counter(item["class_index"] for item in items))
    pseudonyms = {user_id: f"annotator-{number}" for number, user_id in enumerate(sorted(votes), 1)}
    return {
        **({"review": review(session, recipe, pseudonyms)} if review else {}),
        "format": SUMMARY_FORMAT,
        "sources": sum(states.values()),
        "states": {str(state): states[state] for state in State},
        "verdicts": verdicts,
        "decided_by": dict(sorted(Counter(item["decided_by"] for item in items).items())),
        "parts": dict(sorted(Counter(item["part"] for item in items).items())),
        "excluded": {str(cause): count for cause, count in causes if cause is not None},
        "reject_reasons": dict(sorted(reasons.items())),
        "annotators": [
            {
                "annotator": pseudonym,
                "accepts": votes[user_id][Verdict.ACCEPT],
                "rejects": votes[user_id][Verdict.REJECT],
                "skips": votes[user_id][Verdict.SKIP],
            }
            for user_id, pseudonym in pseudonyms.items()
        ],
        "classes": {
            "total": classes.classes,
            "with_members": len(classes.counts),
            "smallest": classes.smallest,
            "median": classes.median,
            "largest": classes.largest,
        },
        "class_list_sha256": get_meta(session, CLASS_LIST_SHA256),
        "recipe_hash": recipe.hash,
    }
