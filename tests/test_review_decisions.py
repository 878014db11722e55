"""What stands follows from what was decided, in whatever order; the queue lets through what it says."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from db.models import Candidate, CurrentVerdict, Decision, Kind, Reason, Verdict
from db.queries import ensure_user
from db.workspace import Workspace, open_workspace
from review.decisions import (
    DecisionEvent,
    MalformedEvent,
    NothingToUndo,
    ReasonMissing,
    ReasonNotAllowed,
    StaleResult,
    Status,
    UnknownCandidate,
    UnknownReason,
    UuidTaken,
    history,
    last_standing,
    rebuild_current_verdicts,
    record,
    verdict_counts,
)
from review.queue import (
    InvalidCursor,
    Order,
    QueueFilter,
    QueueState,
    classes_with_candidates,
    count,
    counts_by_state,
    next_items,
    one_item,
)
from tests.browser import synthetic_candidates


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory) -> tuple[Workspace, list[int], list[int]]:
    """A workspace of 12 candidates and its two annotators. Tests add decisions; none expects there to be none."""
    workspace = open_workspace(Path(tmp_path_factory.mktemp("review")) / "workspace")
    ids = synthetic_candidates(workspace, 12, size=8)
    with workspace.write() as session:
        users = [ensure_user(session, name).id for name in ("first", "second")]
    yield workspace, ids, users
    workspace.close()


def sha_of(workspace: Workspace, candidate_id: int) -> str:
    with workspace.read() as session:
        return session.get(Candidate, candidate_id).result_sha256


def judge(workspace: Workspace, candidate_id: int, verdict: str, *, reasons=(), **fields) -> DecisionEvent:
    reasons = reasons or ((Reason.OBJECT_LEFT,) if verdict == "reject" else ())
    sha = sha_of(workspace, candidate_id)
    return DecisionEvent(str(uuid.uuid4()), verdict, candidate_id, sha, reasons, **fields)


def undo(of: str | None = None) -> DecisionEvent:
    return DecisionEvent(str(uuid.uuid4()), "undo", undoes=of)


def standing(workspace: Workspace) -> dict[tuple[int, int], tuple[str, list[str], int]]:
    with workspace.read() as session:
        return {
            (row.candidate_id, row.user_id): (row.verdict.value, row.reasons, row.decision_id)
            for row in session.scalars(select(CurrentVerdict))
        }


def replayed(workspace: Workspace) -> dict[tuple[int, int], tuple[str, list[str], int]]:
    """The oracle: a stack a pair, one push a verdict, one removal an undo."""
    stacks: dict[tuple[int, int], list[Decision]] = {}
    with workspace.read() as session:
        for decision in session.scalars(select(Decision).order_by(Decision.id)):
            stack = stacks.setdefault((decision.candidate_id, decision.user_id), [])
            if decision.verdict is Verdict.UNDO:
                assert stack.pop().id == decision.undoes_id, "an undo takes back what stood"
            else:
                stack.append(decision)
    return {pair: (stack[-1].verdict.value, stack[-1].reasons, stack[-1].id) for pair, stack in stacks.items() if stack}


STEP = st.tuples(
    st.sampled_from(["accept", "reject", "skip", "undo last", "undo named", "again"]),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 30),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=25), batch=st.integers(1, 5))
def test_what_stands_is_what_a_replay_gives(reviewed, steps, batch):
    workspace, ids, users = reviewed
    sent: list[tuple[int, DecisionEvent]] = []
    for verb, candidate, user, which in steps:
        mine = [event for who, event in sent if who == user and event.verdict != "undo"]
        if verb == "again":
            if sent:
                sent.append(sent[which % len(sent)])
        elif verb == "undo last":
            sent.append((user, undo()))
        elif verb == "undo named":
            sent.append((user, undo(mine[which % len(mine)].uuid if mine else str(uuid.uuid4()))))
        else:
            sent.append((user, judge(workspace, ids[candidate], verb)))
    for user, group in itertools.groupby(sent, key=lambda entry: entry[0]):
        events = [event for _, event in group]
        for start in range(0, len(events), batch):
            record(workspace, events[start : start + batch], users[user])
    derived = standing(workspace)
    assert derived == replayed(workspace)
    with workspace.write() as session:
        assert rebuild_current_verdicts(session) == len(derived)
    assert standing(workspace) == derived
    with workspace.read() as session:
        stored = list(session.scalars(select(Decision.uuid)))
    assert len(stored) == len(set(stored))


def test_undo_brings_back_the_verdict_before(workspace):
    ids = synthetic_candidates(workspace, 2, size=8)
    with workspace.write() as session:
        user = ensure_user(session).id
    first, second = judge(workspace, ids[0], "accept", elapsed_ms=700), judge(workspace, ids[0], "reject")
    assert [answer.standing for answer in record(workspace, [first, second], user)] == [Verdict.ACCEPT, Verdict.REJECT]
    (refused,) = record(workspace, [undo(first.uuid)], user)
    assert refused.status is Status.REFUSED, "only the latest may be taken back"
    answers = record(workspace, [undo(second.uuid), undo(), undo()], user)
    assert [(answer.status, answer.standing) for answer in answers] == [
        (Status.STORED, Verdict.ACCEPT),
        (Status.STORED, None),
        (Status.REFUSED, None),
    ]
    assert isinstance(answers[2].refusal, NothingToUndo)
    with workspace.read() as session:
        entries = history(session, ids[0], user)
        assert [(entry.verdict.value, entry.undone) for entry in entries] == [
            ("accept", True),
            ("reject", True),
            ("undo", False),
            ("undo", False),
        ]
        assert last_standing(session, user) is None
        assert set(verdict_counts(session, user_id=user).values()) == {0}


def test_an_event_sent_twice_is_stored_once(reviewed):
    workspace, ids, users = reviewed
    event = judge(workspace, ids[5], "skip")
    answers = record(workspace, [event, event], users[0]) + record(workspace, [event], users[0])
    assert [answer.status for answer in answers] == [Status.STORED, Status.DUPLICATE, Status.DUPLICATE]
    assert {answer.standing for answer in answers} == {Verdict.SKIP}
    (other,) = record(workspace, [event], users[1])
    assert isinstance(other.refusal, UuidTaken)


def test_a_refused_event_names_the_field_and_stops_nothing(reviewed):
    workspace, ids, users = reviewed
    sha = sha_of(workspace, ids[6])
    new = lambda: str(uuid.uuid4())  # noqa: E731
    cases = [
        (DecisionEvent(new(), "accept", 10**9, sha), UnknownCandidate, "candidate_id"),
        (DecisionEvent(new(), "accept", None, sha), UnknownCandidate, "candidate_id"),
        (DecisionEvent(new(), "accept", ids[6], "0" * 64), StaleResult, "result_sha256"),
        (DecisionEvent(new(), "reject", ids[6], sha, ["ugly"]), UnknownReason, "reasons"),
        (DecisionEvent(new(), "reject", ids[6], sha), ReasonMissing, "reasons"),
        (DecisionEvent(new(), "accept", ids[6], sha, ["artefact"]), ReasonNotAllowed, "reasons"),
        (DecisionEvent(new(), "perhaps", ids[6], sha), MalformedEvent, "verdict"),
        (DecisionEvent("not a uuid", "accept", ids[6], sha), MalformedEvent, "uuid"),
        (DecisionEvent(new(), "accept", ids[6], sha, undoes=new()), MalformedEvent, "undoes"),
        (DecisionEvent(new(), "undo", undoes=new()), NothingToUndo, "undoes"),
    ]
    good = judge(workspace, ids[6], "reject", reasons=["artefact", "shadow_or_reflection", "artefact"])
    answers = record(workspace, [*(event for event, _, _ in cases), good], users[0])
    for answer, (_, kind, field) in zip(answers[:-1], cases, strict=True):
        assert answer.status is Status.REFUSED
        assert isinstance(answer.refusal, kind)
        assert answer.refusal.field == field
    assert answers[-1].status is Status.STORED
    assert standing(workspace)[ids[6], users[0]][1] == ["artefact", "shadow_or_reflection"]


def test_decisions_cannot_be_rewritten(reviewed):
    workspace, ids, users = reviewed
    record(workspace, [judge(workspace, ids[7], "accept")], users[0])
    for statement in ("UPDATE decisions SET verdict = 'reject'", "DELETE FROM decisions"):
        with pytest.raises(DBAPIError, match="append-only"), workspace.write() as session:
            session.execute(text(statement))


@pytest.fixture(scope="module")
def queue_workspace(tmp_path_factory):
    workspace = open_workspace(Path(tmp_path_factory.mktemp("queue")) / "workspace")
    ids = synthetic_candidates(workspace, 30, size=8)
    with workspace.write() as session:
        users = [ensure_user(session, name).id for name in ("first", "second")]
    verdicts = ("accept", "reject", "skip", None)
    for user, shift in zip(users, (0, 1), strict=True):
        chosen = [(candidate, verdicts[(candidate + shift) % 4]) for candidate in ids]
        record(workspace, [judge(workspace, candidate, verdict) for candidate, verdict in chosen if verdict], user)
    yield workspace, users
    workspace.close()


SORTS = {
    Order.ID: lambda row: row.id,
    Order.DROP: lambda row: (row.drop, row.id),
    Order.RESIDUAL: lambda row: (-row.residual, -row.id),
    Order.CLASS: lambda row: (row.class_index, row.id),
}


@settings(max_examples=60, deadline=None)
@given(
    state=st.sampled_from(QueueState),
    order=st.sampled_from(Order),
    class_index=st.none() | st.integers(0, 3),
    drops=st.tuples(st.none() | st.floats(-1, 16), st.none() | st.floats(-1, 16)),
    kind=st.none() | st.sampled_from([Kind.BACKGROUND, Kind.TEXTURE]),
    limit=st.integers(1, 12),
    user=st.integers(0, 1),
)
def test_the_queue_pages_through_what_the_filter_says(
    queue_workspace, state, order, class_index, drops, kind, limit, user
):
    workspace, users = queue_workspace
    wanted = QueueFilter(state, class_index, *drops, kind, recipe_id=1)
    own = {pair[0]: value[0] for pair, value in standing(workspace).items() if pair[1] == users[user]}
    states = {None: QueueState.UNREVIEWED, "accept": "accepted", "reject": "rejected", "skip": "skipped"}
    with workspace.read() as session:
        expected = [
            row
            for row in session.scalars(select(Candidate))
            if (class_index is None or row.class_index == class_index)
            and (drops[0] is None or row.drop >= drops[0])
            and (drops[1] is None or row.drop <= drops[1])
            and (kind is None or row.kind is kind)
            and (state is QueueState.ALL or states[own.get(row.id)] == state)
        ]
        expected.sort(key=SORTS[order])
        seen, cursor = [], None
        for _ in range(40):
            page = next_items(session, wanted, users[user], cursor, limit, order)
            assert len(page.items) <= limit
            seen += page.items
            cursor = page.cursor
            if cursor is None:
                break
        assert [item.id for item in seen] == [row.id for row in expected]
        assert [item.verdict for item in seen] == [own.get(row.id) for row in expected]
        assert count(session, wanted, users[user]) == len(expected)
        counts = counts_by_state(session, wanted, users[user])
    assert counts.pop(QueueState.ALL) == sum(counts.values())


def test_queue_odds_and_ends(queue_workspace):
    workspace, users = queue_workspace
    with workspace.read() as session:
        page = next_items(session, QueueFilter(QueueState.ALL), users[0], limit=5)
        assert one_item(session, page.items[2].id, users[0]) == page.items[2]
        assert one_item(session, 10**9, users[0]) is None
        for bad in (page.cursor, "%%%", "AAAA", "e30"):
            with pytest.raises(InvalidCursor):
                next_items(session, QueueFilter(), users[0], bad, order=Order.DROP)
        assert classes_with_candidates(session, 1) == [
            (0, "tench", 10),
            (1, "goldfish", 10),
            (2, "great white shark", 10),
        ]
        assert classes_with_candidates(session, 99) == []
        assert sum(verdict_counts(session, recipe_id=1).values()) == sum(verdict_counts(session).values()) > 40
