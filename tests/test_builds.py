"""Rules against a plain-Python oracle, previews, and what a freeze must never let change."""

from __future__ import annotations

import hashlib
import io
import json
import random
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DatabaseError

from db.models import (
    Adjudication,
    Build,
    BuildItem,
    Candidate,
    CurrentVerdict,
    Decision,
    ImageClass,
    Kind,
    Outcome,
    Reason,
    Recipe,
    SourceImage,
    Split,
    State,
    Verdict,
)
from db.queries import ACTIVE_RECIPE, CLASS_LIST_SHA256, ensure_user, set_meta
from db.workspace import Workspace, open_workspace
from exports.builds import (
    BuildError,
    EmptyBuild,
    UnknownBuild,
    build_label,
    compare,
    find_build,
    freeze,
    hash_items,
    list_builds,
)
from exports.rules import PRESETS, Cause, Rule, RuleError
from exports.what_if import preview

CLASSES = {0: ("n01440764", "tench"), 1: ("n01443537", "goldfish"), 2: ("n01484850", 'great "white" shark, big')}


def png_bytes(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Maker:
    """Fills a workspace straight through the tables, with real PNGs on disk."""

    workspace: Workspace

    def prepare(self, *, grade: str = "embedded") -> Recipe:
        backends = {stage: {"name": f"{stage}_x", "grade": grade} for stage in ("masker", "inpainter", "scorer")}
        recipe = Recipe(hash="ab" * 32, config={"format": 1, "options": {"seed": 0}, "backends": backends})
        with self.workspace.write() as session:
            for index, (wnid, name) in CLASSES.items():
                session.add(ImageClass(class_index=index, wnid=wnid, name=name))
            session.add(recipe)
            session.flush()
            set_meta(session, ACTIVE_RECIPE, str(recipe.id))
            set_meta(session, CLASS_LIST_SHA256, "c" * 64)
        return recipe

    def source(self, name: str, class_index: int = 0, split: Split = Split.VAL) -> SourceImage:
        source = SourceImage(
            name=name,
            split=split,
            root="/photos",
            path=f"{name}.JPEG",
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            bytes=100,
            width=8,
            height=8,
            class_index=class_index,
        )
        with self.workspace.write() as session:
            session.add(source)
        return source

    def candidate(self, source: SourceImage, recipe: Recipe, **values) -> Candidate:
        values = {"kind": Kind.BACKGROUND, "version": 1, "drop": 6.0, "area": 0.2, "residual": 1.0} | values
        folder = f"candidates/{recipe.id}/{source.id}-{values['kind']}-{values.get('variant', 0)}-{values['version']}"
        content = png_bytes(source.id * 10 + values["version"])
        target = self.workspace.root / folder
        target.mkdir(parents=True)
        (target / "result.png").write_bytes(content)
        candidate = Candidate(
            source_id=source.id,
            recipe_id=recipe.id,
            class_index=source.class_index,
            folder=folder,
            result_sha256=hashlib.sha256(content).hexdigest(),
            width=8,
            height=8,
            logit_source=20.0,
            logit_candidate=20.0 - values["drop"],
            rank=7,
            probability=0.12345678,
            dilated_area=0.3,
            phash="0" * 16,
            boxes=[],
            timings={},
            notes={},
            **values,
        )
        with self.workspace.write() as session:
            session.add(candidate)
            session.flush()
            session.merge(
                Outcome(source_id=source.id, recipe_id=recipe.id, state=State.CANDIDATE, candidate_id=candidate.id)
            )
        return candidate

    def vote(self, candidate: Candidate, user: str, verdict: Verdict, *reasons: Reason) -> None:
        with self.workspace.write() as session:
            user_id = ensure_user(session, user).id
            decision = Decision(
                uuid=str(uuid.uuid4()),
                candidate_id=candidate.id,
                user_id=user_id,
                verdict=verdict,
                reasons=list(reasons),
                result_sha256=candidate.result_sha256,
                elapsed_ms=900,
            )
            session.add(decision)
            session.flush()
            session.merge(
                CurrentVerdict(
                    candidate_id=candidate.id,
                    user_id=user_id,
                    verdict=verdict,
                    reasons=list(reasons),
                    decision_id=decision.id,
                )
            )

    def adjudicate(self, candidate: Candidate, verdict: Verdict) -> None:
        with self.workspace.write() as session:
            row = Adjudication(
                uuid=str(uuid.uuid4()),
                candidate_id=candidate.id,
                user_id=ensure_user(session, "Eve").id,
                verdict=verdict,
                result_sha256=candidate.result_sha256,
            )
            session.add(row)


@dataclass
class Small:
    """Six val sources: accepted, rejected, disagreed, skipped, unseen with a small drop, and one without a mask."""

    maker: Maker
    recipe: Recipe
    candidates: dict[str, Candidate]

    @property
    def workspace(self) -> Workspace:
        return self.maker.workspace


def make_small(workspace: Workspace, *, grade: str = "embedded") -> Small:
    maker = Maker(workspace)
    recipe = maker.prepare(grade=grade)
    candidates = {}
    for number, name in enumerate(["accepted", "rejected", "disagreed", "skipped", "shallow"]):
        source = maker.source(f"ILSVRC2012_val_0000000{number}_{name}", class_index=2 - number % 3)
        candidates[name] = maker.candidate(source, recipe, drop=5.0 if name == "shallow" else 6.0 + number)
    maker.vote(candidates["accepted"], "Ada", Verdict.ACCEPT)
    maker.vote(candidates["rejected"], "Ada", Verdict.REJECT, Reason.OBJECT_LEFT, Reason.SHADOW)
    maker.vote(candidates["disagreed"], "Ada", Verdict.ACCEPT)
    maker.vote(candidates["disagreed"], "Bob", Verdict.REJECT, Reason.OBJECT_LEFT)
    maker.vote(candidates["skipped"], "Bob", Verdict.SKIP)
    without_mask = maker.source("ILSVRC2012_val_00000009_empty")
    with workspace.write() as session:
        session.add(Outcome(source_id=without_mask.id, recipe_id=recipe.id, state=State.NO_DETECTION))
    return Small(maker, recipe, candidates)


@pytest.fixture
def small(workspace) -> Small:
    return make_small(workspace)


def member_names(small: Small, build: Build) -> list[str]:
    with small.workspace.read() as session:
        query = select(BuildItem.source_name).where(BuildItem.build_id == build.id).order_by(BuildItem.position)
        return [name.rsplit("_", 1)[1] for name in session.scalars(query)]


# rules


@dataclass(frozen=True)
class Fact:
    """What the oracle knows of a candidate."""

    id: int
    source_id: int
    recipe_id: int
    kind: Kind
    split: Split
    version: int
    drop: float
    area: float
    residual: float
    class_index: int
    verdicts: tuple[Verdict, ...]
    adjudications: tuple[Verdict, ...]

    @property
    def said(self) -> tuple[Verdict, ...]:
        """What counts: the last adjudication alone, unless it is an undo."""
        last = self.adjudications[-1:]
        return last if last and last[0] is not Verdict.UNDO else self.verdicts


def oracle(rule: Rule, fact: Fact, facts: list[Fact]) -> Cause | None:
    """The causes in words, one after the other; None for a member."""
    same = [f for f in facts if (f.source_id, f.recipe_id, f.kind) == (fact.source_id, fact.recipe_id, fact.kind)]
    if fact.version != max(f.version for f in same):
        return Cause.SUPERSEDED
    if rule.verdicts != "any" and Verdict.REJECT in fact.said:
        return Cause.REJECTED
    if rule.verdicts == "accepted" and Verdict.ACCEPT not in fact.said:
        return Cause.NOT_ACCEPTED
    if rule.drop_above is not None and not fact.drop > rule.drop_above:
        return Cause.DROP
    if rule.drop_at_least is not None and not fact.drop >= rule.drop_at_least:
        return Cause.DROP
    if rule.area_min is not None and not fact.area >= rule.area_min:
        return Cause.AREA
    if rule.area_max is not None and not fact.area <= rule.area_max:
        return Cause.AREA
    if rule.residual_max is not None and not fact.residual <= rule.residual_max:
        return Cause.RESIDUAL
    return None


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """200 candidates on a coarse grid of values, so that rules often meet a value exactly."""
    workspace = open_workspace(tmp_path_factory.mktemp("crowd") / "workspace")
    maker = Maker(workspace)
    recipe = maker.prepare()
    other = Recipe(hash="cd" * 32, config={})
    with workspace.write() as session:
        session.add(other)
    dice = random.Random(7)
    facts = []
    for number in range(130):
        split = dice.choice([Split.VAL, Split.VAL, Split.VAL, Split.TRAIN])
        source = maker.source(f"s{number:03d}", dice.randrange(3), split)
        kind = dice.choice([Kind.BACKGROUND, Kind.BACKGROUND, Kind.TEXTURE])
        made_by = dice.choice([recipe, recipe, recipe, other])
        for version in range(1, dice.choice([1, 1, 2, 3]) + 1):
            values = {
                "drop": float(dice.randrange(-2, 10)),
                "area": dice.randrange(0, 11) / 10,
                "residual": float(dice.randrange(-3, 4)),
            }
            candidate = maker.candidate(source, made_by, kind=kind, version=version, **values)
            votes = [dice.choice([None, None, Verdict.ACCEPT, Verdict.REJECT, Verdict.SKIP]) for _ in range(3)]
            for user, vote in enumerate(votes):
                if vote is not None:
                    maker.vote(candidate, f"user{user}", vote)
            standing = tuple(vote for vote in votes if vote is not None)
            words = dice.choice([(), (), ("accept",), ("reject",), ("reject", "undo"), ("accept", "undo", "reject")])
            words = tuple(Verdict(word) for word in words)
            for word in words:
                maker.adjudicate(candidate, word)
            ids = (candidate.id, source.id, made_by.id)
            facts.append(
                Fact(
                    *ids,
                    kind,
                    split,
                    version,
                    **values,
                    class_index=source.class_index,
                    verdicts=standing,
                    adjudications=words,
                )
            )
    yield workspace, recipe, facts
    workspace.close()


def _maybe(values):
    return st.none() | values


@st.composite
def rules(draw) -> Rule:
    area = sorted(draw(st.lists(st.integers(0, 10).map(lambda n: n / 10), min_size=2, max_size=2)))
    drop = {draw(st.sampled_from(["drop_above", "drop_at_least"])): draw(_maybe(st.integers(-3, 10)))}
    return Rule(
        verdicts=draw(st.sampled_from(["not_rejected", "accepted", "any"])),
        area_min=draw(_maybe(st.just(area[0]))),
        area_max=draw(_maybe(st.just(area[1]))),
        residual_max=draw(_maybe(st.integers(-4, 4))),
        kind=draw(st.sampled_from([Kind.BACKGROUND, Kind.TEXTURE])),
        split=draw(st.sampled_from(Split)),
        **drop,
    )


@given(rule=rules())
@settings(max_examples=80, deadline=None)
def test_rule_takes_what_the_oracle_takes(crowd, rule):
    workspace, recipe, facts = crowd
    population = [f for f in facts if (f.recipe_id, f.kind, f.split) == (recipe.id, rule.kind, rule.split)]
    causes = {fact.id: oracle(rule, fact, facts) for fact in population}
    members = {fact_id for fact_id, cause in causes.items() if cause is None}
    joined = select(Candidate.id).join(SourceImage, SourceImage.id == Candidate.source_id)
    with workspace.read() as session:
        assert set(session.scalars(joined.where(rule.where(recipe.id)))) == members
        seen = preview(session, recipe, rule, sample_size=5, seed=3)
    assert seen.candidates == len(population)
    assert seen.members == len(members)
    assert seen.excluded == {cause: list(causes.values()).count(cause) for cause in Cause}
    assert set(seen.sample) <= members
    assert len(seen.sample) == min(5, len(members))
    per_class = Counter(fact.class_index for fact in population if fact.id in members)
    assert seen.classes.counts == per_class
    assert set(seen.classes.empty) == set(CLASSES) - set(per_class)
    current = [fact for fact in population if causes[fact.id] != Cause.SUPERSEDED]
    bins = zip(pairwise(seen.histogram.edges), seen.histogram.all, seen.histogram.members, strict=True)
    for (low, high), both, inside in bins:
        here = [fact.id for fact in current if low <= fact.drop < high]
        assert (both, inside) == (len(here), len(members.intersection(here)))
    assert sum(seen.histogram.all) == len(current)


@given(rule=rules())
@settings(max_examples=50)
def test_rule_survives_json(rule):
    assert Rule.from_json(json.loads(json.dumps(rule.to_json()))) == rule
    assert rule.describe().endswith(".")


def test_presets_are_the_published_sets():
    assert PRESETS["bg"] == Rule(verdicts="not_rejected")
    assert PRESETS["bg_s"] == replace(PRESETS["bg"], drop_above=5)
    assert PRESETS["bg_s"].describe() == (
        "Every background candidate of the val sources that no annotator rejects, with a drop above 5."
    )


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"verdicts": "liked"}, "verdicts"),
        ({"drop_above": "5"}, "drop_above"),
        ({"drop_above": True}, "drop_above"),
        ({"drop_at_least": float("nan")}, "drop_at_least"),
        ({"residual_max": float("inf")}, "residual_max"),
        ({"area_min": -0.1}, "area_min"),
        ({"area_max": 1.5}, "area_max"),
        ({"area_min": 0.5, "area_max": 0.4}, "area_min"),
        ({"drop_above": 1, "drop_at_least": 1}, "drop_at_least"),
        ({"kind": "foreground"}, "kind"),
        ({"split": "test"}, "split"),
        ({"drop": 5}, "drop"),
    ],
)
def test_rule_errors_name_the_field(values, field):
    with pytest.raises(RuleError, match=field) as caught:
        Rule.from_json(values)
    assert caught.value.field == field


# freezing


def test_freeze_follows_the_verdicts(small):
    bg = freeze(small.workspace, "bg", PRESETS["bg"]).build
    assert sorted(member_names(small, bg)) == ["accepted", "shallow", "skipped"]
    assert member_names(small, freeze(small.workspace, "bg_s", PRESETS["bg_s"]).build) == ["accepted", "skipped"]
    assert member_names(small, freeze(small.workspace, "ok", Rule(verdicts="accepted")).build) == ["accepted"]
    assert freeze(small.workspace, "all", Rule(verdicts="any")).build.item_count == 5


def test_an_adjudication_decides_until_it_is_undone(small):
    small.maker.adjudicate(small.candidates["disagreed"], Verdict.ACCEPT)
    small.maker.adjudicate(small.candidates["accepted"], Verdict.REJECT)
    build = freeze(small.workspace, "ok", Rule(verdicts="accepted")).build
    assert member_names(small, build) == ["disagreed"]
    assert build.summary["verdicts"] == {"accepted": 1, "rejected": 2, "undecided": 2, "disagreed": 0}
    small.maker.adjudicate(small.candidates["disagreed"], Verdict.UNDO)
    small.maker.adjudicate(small.candidates["accepted"], Verdict.UNDO)
    build = freeze(small.workspace, "ok", Rule(verdicts="accepted")).build
    assert member_names(small, build) == ["accepted"]
    assert build.summary["verdicts"] == {"accepted": 1, "rejected": 2, "undecided": 2, "disagreed": 1}


def test_variants_do_not_replace_each_other(small):
    source = small.maker.source("grown")
    for variant, version in ((0, 1), (1, 1), (1, 2)):
        small.maker.candidate(source, small.recipe, kind=Kind.TEXTURE, variant=variant, version=version)
    with small.workspace.read() as session:
        seen = preview(session, small.recipe, Rule(kind=Kind.TEXTURE))
    assert (seen.members, seen.excluded[Cause.SUPERSEDED]) == (2, 1)


def test_items_are_sorted_and_hashed(small):
    build = freeze(small.workspace, "bg", PRESETS["bg"]).build
    with small.workspace.read() as session:
        items = list(
            session.scalars(select(BuildItem).where(BuildItem.build_id == build.id).order_by(BuildItem.position))
        )
    keys = [(item.class_index, item.source_name) for item in items]
    assert keys == sorted(keys)
    assert [item.position for item in items] == list(range(3))
    lines = [(i.source_name, i.class_index, "background", 1, i.result_sha256) for i in items]
    assert build.content_hash == hash_items(lines)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    assert build.content_hash == hashlib.sha256(text.encode()).hexdigest()


def test_summary_is_the_state_at_the_freeze(small):
    build = freeze(small.workspace, "bg", PRESETS["bg"], created_by="Ada").build
    summary = build.summary
    assert summary["sources"] == sum(summary["states"].values()) == 6
    assert summary["states"]["candidate"] == 5
    assert summary["states"]["no_detection"] == 1
    assert summary["verdicts"] == {"accepted": 1, "rejected": 2, "undecided": 2, "disagreed": 1}
    assert summary["excluded"] == {"rejected": 2}
    assert summary["reject_reasons"] == {"object_left": 2, "shadow_or_reflection": 1}
    assert [row["annotator"] for row in summary["annotators"]] == ["annotator-1", "annotator-2"]
    assert summary["annotators"][1] == {"annotator": "annotator-2", "accepts": 0, "rejects": 1, "skips": 1}
    assert summary["class_list_sha256"] == "c" * 64
    assert summary["recipe_hash"] == small.recipe.hash
    assert build.last_decision_id == 5
    assert "Ada" not in json.dumps(summary)


def test_same_build_is_not_frozen_twice(small):
    first = freeze(small.workspace, "bg", PRESETS["bg"])
    again = freeze(small.workspace, "bg", PRESETS["bg"])
    assert (first.is_new, again.is_new) == (True, False)
    assert again.build.id == first.build.id
    other_rule = freeze(small.workspace, "bg", Rule(drop_at_least=0))
    assert other_rule.is_new
    assert other_rule.build.number == 2
    assert other_rule.build.content_hash == first.build.content_hash
    back = freeze(small.workspace, "bg", PRESETS["bg"])
    assert back.is_new
    assert back.build.number == 3


def test_later_verdicts_change_the_next_build_only(small):
    first = freeze(small.workspace, "bg", PRESETS["bg"]).build
    before = member_names(small, first)
    small.maker.vote(small.candidates["skipped"], "Ada", Verdict.REJECT, Reason.ARTEFACT)
    small.maker.vote(small.candidates["rejected"], "Ada", Verdict.ACCEPT)
    second = freeze(small.workspace, "bg", PRESETS["bg"]).build
    assert member_names(small, first) == before
    with small.workspace.read() as session:
        stored = session.get_one(Build, first.id)
        assert (stored.content_hash, stored.summary) == (first.content_hash, first.summary)
        change = compare(session, first, second)
        assert second.number == 2
    assert [name.rsplit("_", 1)[1] for name in change.entered] == ["rejected"]
    assert [name.rsplit("_", 1)[1] for name in change.left] == ["skipped"]
    assert (change.changed, change.unchanged) == ((), 2)


def test_a_remade_candidate_replaces_the_old_one(small):
    first = freeze(small.workspace, "bg", PRESETS["bg"]).build
    old = small.candidates["rejected"]
    with small.workspace.read() as session:
        source = session.get_one(SourceImage, old.source_id)
        kept = session.get_one(SourceImage, small.candidates["accepted"].source_id)
    small.maker.candidate(source, small.recipe, version=2, parent_id=old.id)
    small.maker.candidate(kept, small.recipe, version=2)
    second = freeze(small.workspace, "bg", PRESETS["bg"]).build
    with small.workspace.read() as session:
        change = compare(session, first, second)
    assert change.entered == (source.name,)
    assert change.changed == (kept.name,)
    assert second.summary["excluded"] == {"rejected": 1, "superseded": 2}


@pytest.mark.parametrize("table", [Build, BuildItem])
def test_a_build_cannot_be_rewritten(small, table):
    freeze(small.workspace, "bg", PRESETS["bg"])
    column = {Build: {"item_count": 0}, BuildItem: {"drop": 0.0}}[table]
    for statement in (update(table).values(column), delete(table)):
        with pytest.raises(DatabaseError, match="append-only"), small.workspace.write() as session:
            session.execute(statement)


def test_nothing_to_freeze_says_why(small):
    with pytest.raises(EmptyBuild, match=r"none of 5 candidates.*2 by rejected, 3 by drop"):
        freeze(small.workspace, "bg", Rule(drop_above=99))
    with pytest.raises(EmptyBuild, match="no texture candidates"):
        freeze(small.workspace, "bg", Rule(kind=Kind.TEXTURE))
    with small.workspace.read() as session:
        assert list_builds(session) == []


@pytest.mark.parametrize("name", ["", "Bg", "bg-2", "2bg", "bg/../x", "b" * 41])
def test_bad_names_are_refused(small, name):
    with pytest.raises(BuildError, match="name"):
        freeze(small.workspace, name, PRESETS["bg"])


def test_freezing_without_a_recipe_says_so(workspace):
    with pytest.raises(BuildError, match="no recipe"):
        freeze(workspace, "bg", PRESETS["bg"])


def test_builds_are_found_by_name_and_number(small):
    with small.workspace.read() as session, pytest.raises(UnknownBuild, match="freeze one first"):
        find_build(session, "bg")
    freeze(small.workspace, "bg", PRESETS["bg"])
    freeze(small.workspace, "bg", Rule(verdicts="any"))
    freeze(small.workspace, "bg_s", PRESETS["bg_s"])
    with small.workspace.read() as session:
        labels = [build_label(find_build(session, reference)) for reference in ("bg", "bg-1", "bg-v1", "bg_s")]
        assert labels == ["bg-v2", "bg-v1", "bg-v1", "bg_s-v1"]
        assert [build_label(build) for build in list_builds(session)] == ["bg-v1", "bg-v2", "bg_s-v1"]
        for reference in ("bg-3", "nothing", "bg-0", ""):
            with pytest.raises(UnknownBuild, match="bg-v1, bg-v2, bg_s-v1"):
                find_build(session, reference)


def test_preview_sample_depends_on_the_seed_only(crowd):
    workspace, recipe, _ = crowd
    with workspace.read() as session:
        samples = [preview(session, recipe, Rule(), sample_size=6, seed=seed).sample for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]


def test_preview_without_candidates(workspace):
    recipe = Maker(workspace).prepare()
    with workspace.read() as session:
        seen = preview(session, recipe, Rule())
    assert (seen.candidates, seen.members, seen.histogram.edges, seen.sample) == (0, 0, (), ())
    assert seen.classes.empty == (0, 1, 2)
