"""The queue lets through what its filter says, in its order, page after page; saved views keep both."""

from __future__ import annotations

import base64
import random
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import literal, select

from db.models import (
    Candidate,
    DuplicateMember,
    Kind,
    Recipe,
    TriageModel,
    TriagePrediction,
    Verdict,
)
from db.queries import ensure_user
from db.workspace import Workspace, open_workspace
from review.decisions import record
from review.events import DecisionEvent
from review.filters import QueueFilter, QueueState, conditions
from review.orders import InvalidCursor, Order
from review.overlap import Overlap, save_overlap
from review.progress import count, counts_by_state
from review.queue import classes_with_candidates, next_items, one_item, recipes_with_candidates
from review.random_order import MAX_SEED, Permutation, are_few, prime_from
from review.views import MAX_VIEWS, UnknownView, ViewError, delete_view, list_views, save_view
from tests.browser import synthetic_candidates

CANDIDATES = 40


@dataclass(frozen=True)
class Fact:
    """What the oracle knows of a candidate; ``verdicts`` by user id."""

    row: Candidate
    verdicts: dict[int, str]
    p_accept: float | None
    duplicate: bool


@dataclass(frozen=True)
class Filled:
    workspace: Workspace
    users: tuple[int, int]
    facts: dict[int, Fact]


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Filled:
    """40 candidates under one recipe; two annotators' verdicts, predictions and duplicates drawn at random.

    Every candidate wants two annotators, so that either is asked for whatever they have not judged.
    """
    workspace = open_workspace(Path(tmp_path_factory.mktemp("queue")) / "workspace")
    ids = synthetic_candidates(workspace, CANDIDATES, size=8)
    rng = random.Random(1)
    with workspace.write() as session:
        save_overlap(session, Overlap(share=1.0, k=2))
        users = tuple(ensure_user(session, name).id for name in ("first", "second"))
        session.add(TriageModel(recipe_id=1, last_decision_id=0, trained_on=0, features=[], metrics={}))
        session.flush()
        for candidate in session.scalars(select(Candidate)):
            candidate.drop = rng.randrange(0, 12) / 2  # ties, so that the id has to decide
            candidate.residual = rng.randrange(0, 6) / 2
            candidate.area = rng.randrange(1, 9) / 10
            candidate.kind = rng.choice([Kind.BACKGROUND, Kind.BACKGROUND, Kind.TEXTURE])
            if rng.random() < 0.7:
                p = rng.randrange(0, 9) / 8
                prediction = TriagePrediction(
                    candidate_id=candidate.id, model_id=1, p_accept=p, uncertainty=1 - abs(2 * p - 1)
                )
                session.add(prediction)
            if rng.random() < 0.3:
                session.add(DuplicateMember(candidate_id=candidate.id, group_id=1, distance=2))
    verdicts: dict[int, dict[int, str]] = {candidate_id: {} for candidate_id in ids}
    with workspace.read() as session:
        rows = {row.id: row for row in session.scalars(select(Candidate))}
        predicted = {row.candidate_id: row.p_accept for row in session.scalars(select(TriagePrediction))}
        duplicates = set(session.scalars(select(DuplicateMember.candidate_id)))
    for user in users:
        events = []
        for candidate_id in ids:
            verdict = rng.choice(["accept", "reject", "skip", None])
            if verdict is not None:
                verdicts[candidate_id][user] = verdict
                reasons = ["artefact"] if verdict == "reject" else []
                sha = rows[candidate_id].result_sha256
                events.append(DecisionEvent(str(uuid.uuid4()), verdict, candidate_id, sha, reasons))
        record(workspace, events, user)
    facts = {i: Fact(rows[i], verdicts[i], predicted.get(i), i in duplicates) for i in ids}
    yield Filled(workspace, users, facts)
    workspace.close()


STATES = {None: "unreviewed", "accept": "accepted", "reject": "rejected", "skip": "skipped"}


def lets_through(wanted: QueueFilter, fact: Fact, user: int) -> bool:
    """The filter in plain Python."""
    row = fact.row
    ranges = (
        (row.drop, wanted.drop_min, wanted.drop_max),
        (row.area, wanted.area_min, wanted.area_max),
        (row.residual, wanted.residual_min, wanted.residual_max),
        (fact.p_accept, wanted.p_accept_min, wanted.p_accept_max),
    )
    for value, low, high in ranges:
        if (low is not None or high is not None) and value is None:
            return False
        if (low is not None and value < low) or (high is not None and value > high):
            return False
    given = fact.verdicts if wanted.annotator_id is None else {0: fact.verdicts.get(wanted.annotator_id)}
    said = set(given.values()) - {None}
    return (
        wanted.class_index in (None, row.class_index)
        and wanted.kind in (None, row.kind)
        and (wanted.state is QueueState.ALL or STATES[fact.verdicts.get(user)] == wanted.state)
        and (not wanted.duplicates or fact.duplicate)
        and (not wanted.disagreement or {"accept", "reject"} <= set(fact.verdicts.values()))
        and (wanted.verdict is None or wanted.verdict.value in said)
        and (wanted.annotator_id is None or bool(said))
    )


def by_prediction(value, direction: int) -> callable:
    """Those with a prediction by ``value`` of it, upwards (1) or downwards (-1), then the others by their drop."""

    def key(fact: Fact) -> tuple:
        if fact.p_accept is None:
            return (1, fact.row.drop, fact.row.id)
        return (0, direction * value(fact.p_accept), direction * fact.row.id)

    return key


SORTS = {
    Order.ID: lambda fact: fact.row.id,
    Order.DROP: lambda fact: (fact.row.drop, fact.row.id),
    Order.RESIDUAL: lambda fact: (-fact.row.residual, -fact.row.id),
    Order.CLASS: lambda fact: (fact.row.class_index, fact.row.id),
    Order.UNCERTAIN: by_prediction(lambda p: 1 - abs(2 * p - 1), -1),
    Order.P_ACCEPT: by_prediction(lambda p: p, 1),
}


def all_pages(filled: Filled, wanted: QueueFilter, user: int, order: Order, limit: int, seed: int = 0) -> list:
    with filled.workspace.read() as session:
        seen, cursor = [], None
        for _ in range(2 * CANDIDATES):
            page = next_items(session, wanted, user, cursor, limit, order, seed=seed)
            assert len(page.items) <= limit
            assert page.cursor is None or len(page.items) == limit
            seen += page.items
            cursor = page.cursor
            if cursor is None:
                return seen
    raise AssertionError("the pages do not end")


def _maybe_range(low: float, high: float):
    return st.tuples(st.none() | st.floats(low, high), st.none() | st.floats(low, high))


def _mostly(value, other):
    return st.one_of(st.just(value), st.just(value), st.just(value), other)


FILTERS = st.builds(
    lambda state, class_index, kind, drop, area, residual, p_accept, verdict, annotator, disagreement, duplicates: (
        QueueFilter(
            state,
            class_index,
            *drop,
            kind,
            1,
            *area,
            *residual,
            verdict=verdict,
            annotator_id=annotator,
            disagreement=disagreement,
            p_accept_min=p_accept[0],
            p_accept_max=p_accept[1],
            duplicates=duplicates,
        )
    ),
    st.sampled_from([state for state in QueueState if state is not QueueState.NOT_ASKED]),
    _mostly(None, st.integers(0, 3)),
    _mostly(None, st.sampled_from([Kind.BACKGROUND, Kind.TEXTURE])),
    _maybe_range(-1, 7),
    _mostly((None, None), _maybe_range(0, 1)),
    _mostly((None, None), _maybe_range(0, 3)),
    _mostly((None, None), _maybe_range(0, 1)),
    _mostly(None, st.sampled_from([Verdict.ACCEPT, Verdict.REJECT, Verdict.SKIP])),
    _mostly(None, st.integers(1, 3)),
    _mostly(False, st.just(True)),
    _mostly(False, st.just(True)),
)


@settings(max_examples=60, deadline=None)
@given(
    wanted=FILTERS,
    order=st.sampled_from(Order),
    limit=st.integers(3, 15),
    user=st.integers(0, 1),
    seed=st.integers(0, MAX_SEED),
)
def test_the_queue_pages_through_what_the_filter_says(filled, wanted, order, limit, user, seed):
    me = filled.users[user]
    expected = [fact for fact in filled.facts.values() if lets_through(wanted, fact, me)]
    seen = all_pages(filled, wanted, me, order, limit, seed)
    ids = [item.id for item in seen]
    if order is Order.RANDOM:
        assert sorted(ids) == sorted(fact.row.id for fact in expected)
    else:
        assert ids == [fact.row.id for fact in sorted(expected, key=SORTS[order])]
    assert [item.verdict for item in seen] == [filled.facts[i].verdicts.get(me) for i in ids]
    with filled.workspace.read() as session:
        assert count(session, wanted, me) == len(expected)
        counts = counts_by_state(session, wanted, me)
    assert counts.pop(QueueState.ALL) == sum(counts.values())


def test_few_hits_and_many_come_in_the_same_order(filled, monkeypatch):
    """The two ways to search differ in what they cost alone."""
    wanted = QueueFilter(QueueState.ALL, recipe_id=1)
    for order in Order:
        pages = []
        for few in (True, False):
            monkeypatch.setattr("review.orders.are_few", lambda session, asked, few=few: few)
            pages.append(all_pages(filled, wanted, filled.users[0], order, 7, seed=5))
        assert pages[0] == pages[1]
        assert len(pages[0]) == CANDIDATES


def test_a_small_sample_tells_few_from_many(filled):
    with filled.workspace.read() as session:
        assert not are_few(session, conditions(QueueFilter(recipe_id=1)))
        assert are_few(session, conditions(QueueFilter(recipe_id=99)))
        assert are_few(session, [Candidate.id == 3])


@given(first=st.integers(0, 10**6), size=st.integers(1, 400), seed=st.integers(0, MAX_SEED))
@settings(max_examples=60, deadline=None)
def test_a_permutation_goes_both_ways_in_python_and_in_sql(filled, first, size, seed):
    permutation = Permutation(first, prime_from(size), seed)
    steps = range(permutation.prime)
    with filled.workspace.read() as session:
        sampled = [step for step in steps if step % 97 < 3]
        ids = session.execute(select(*(permutation.id_at(literal(step)) for step in sampled))).one()
    assert [permutation.step_of(candidate_id) for candidate_id in ids] == sampled
    every = [permutation.step_of(first + offset) for offset in steps]
    assert sorted(every) == list(steps), "every id has its own step"
    assert permutation.step_of(first - 1) is permutation.step_of(first + permutation.prime) is None


def test_the_random_order_depends_on_the_seed_alone(filled):
    wanted = QueueFilter(QueueState.ALL, recipe_id=1)
    orders = [
        tuple(item.id for item in all_pages(filled, wanted, user, Order.RANDOM, limit, seed))
        for user, limit, seed in ((filled.users[0], 3, 7), (filled.users[1], 20, 7), (filled.users[0], 20, 8))
    ]
    assert orders[0] == orders[1] != orders[2]
    narrowed = [
        item.id for item in all_pages(filled, replace(wanted, class_index=1), filled.users[0], Order.RANDOM, 4, 7)
    ]
    assert narrowed == [i for i in orders[0] if filled.facts[i].row.class_index == 1], "a filter leaves the order"


def test_a_cursor_of_another_order_is_refused(filled):
    with filled.workspace.read() as session:
        wanted = QueueFilter(QueueState.ALL)
        user = filled.users[0]
        of = {order: next_items(session, wanted, user, None, 5, order, seed=3).cursor for order in Order}
        for bad in (of[Order.ID], "%%%", "AAAA", "e30", "bnVsbA"):
            with pytest.raises(InvalidCursor):
                next_items(session, QueueFilter(), user, bad, order=Order.DROP)
        with pytest.raises(InvalidCursor, match="seed"):
            next_items(session, wanted, user, of[Order.RANDOM], order=Order.RANDOM, seed=4)
        for forged in ('["random",1,1,49,3]', '["random",-5,1,43,3]', '["random",1,1.5,43,3]', '["random",1,1,43]'):
            text = base64.urlsafe_b64encode(forged.encode()).decode().rstrip("=")
            with pytest.raises(InvalidCursor):
                next_items(session, wanted, user, text, order=Order.RANDOM, seed=3)


def test_queue_odds_and_ends(filled):
    with filled.workspace.read() as session:
        page = next_items(session, QueueFilter(QueueState.ALL), filled.users[0], limit=5)
        assert one_item(session, page.items[2].id, filled.users[0]) == page.items[2]
        assert one_item(session, 10**9, filled.users[0]) is None
        assert classes_with_candidates(session, 1) == [
            (0, "tench", 14),
            (1, "goldfish", 13),
            (2, "great white shark", 13),
        ]
        assert classes_with_candidates(session, 99) == []
        assert [(recipe.id, number) for recipe, number in recipes_with_candidates(session)] == [(1, CANDIDATES)]


def test_without_predictions_uncertain_first_is_lowest_drop_first(workspace):
    ids = synthetic_candidates(workspace, 6, size=8)
    with workspace.write() as session:
        user = ensure_user(session).id
    with workspace.read() as session:
        for order in (Order.UNCERTAIN, Order.P_ACCEPT):
            page = next_items(session, QueueFilter(recipe_id=1), user, None, 4, order)
            rest = next_items(session, QueueFilter(recipe_id=1), user, page.cursor, 4, order)
            assert [item.id for item in page.items + rest.items] == ids
            assert rest.cursor is None


def test_an_empty_workspace_has_an_empty_queue(workspace):
    with workspace.write() as session:
        session.add(Recipe(hash="0" * 64, config={}))
        user = ensure_user(session).id
    with workspace.read() as session:
        for order in Order:
            assert next_items(session, QueueFilter(recipe_id=1), user, order=order).items == []
        assert set(counts_by_state(session, QueueFilter(recipe_id=1), user).values()) == {0}


def test_views_are_ones_own_or_shared(workspace):
    with workspace.write() as session:
        mine, theirs = (ensure_user(session, name).id for name in ("me", "them"))
        save_view(session, mine, "  hard ones ", {"order": "uncertain"})
        save_view(session, mine, "first class", {"class_index": 1})
        save_view(session, theirs, "theirs alone", {})
        everybodys = save_view(session, theirs, "for all", {"state": "skipped"}, shared=True)
        renewed = save_view(session, mine, "hard ones", {"order": "drop"}, shared=True)
    with workspace.read() as session:
        seen = list_views(session, mine)
        assert [(view.name, view.owner, view.mine, view.shared) for view in seen] == [
            ("first class", "me", True, False),
            ("hard ones", "me", True, True),
            ("for all", "them", False, True),
        ]
        assert renewed.query == {"order": "drop"}
        assert [view.name for view in list_views(session, theirs)] == ["for all", "theirs alone", "hard ones"]
    with pytest.raises(UnknownView), workspace.write() as session:
        delete_view(session, mine, everybodys.id)
    with workspace.write() as session:
        delete_view(session, mine, everybodys.id, is_admin=True)
    with pytest.raises(UnknownView), workspace.write() as session:
        delete_view(session, theirs, everybodys.id)
    for bad in ("", "   ", "x" * 81):
        with pytest.raises(ViewError, match="name"), workspace.write() as session:
            save_view(session, mine, bad, {})


def test_nobody_has_endless_views(workspace):
    with workspace.write() as session:
        user = ensure_user(session).id
        for number in range(MAX_VIEWS):
            save_view(session, user, f"view {number}", {})
        save_view(session, user, "view 7", {"state": "all"})
        with pytest.raises(ViewError, match="delete one"):
            save_view(session, user, "one more", {})
