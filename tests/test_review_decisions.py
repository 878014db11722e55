"""What stands follows from what was decided, undone and redone, in whatever order."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from db.models import Candidate, CurrentVerdict, Decision, Reason, Verdict, Via
from db.queries import ensure_user
from db.workspace import Workspace, open_workspace
from review.decisions import Status, rebuild_current_verdicts, record
from review.events import (
    DecisionEvent,
    MalformedEvent,
    NothingToRedo,
    NothingToUndo,
    ReasonMissing,
    ReasonNotAllowed,
    StaleResult,
    UnknownCandidate,
    UnknownReason,
    UuidTaken,
)
from review.history import history, versions
from review.undo import last_standing, last_undone
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


def redo(of: str | None = None) -> DecisionEvent:
    return DecisionEvent(str(uuid.uuid4()), "redo", redoes=of)


def standing(workspace: Workspace) -> dict[tuple[int, int], tuple[str, list[str], int]]:
    with workspace.read() as session:
        return {
            (row.candidate_id, row.user_id): (row.verdict.value, row.reasons, row.decision_id)
            for row in session.scalars(select(CurrentVerdict))
        }


def replayed(workspace: Workspace) -> dict[tuple[int, int], tuple[str, list[str], int]]:
    """The oracle: a stack a pair, one push a verdict (redone ones too), one removal an undo."""
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
    st.sampled_from(["accept", "reject", "skip", "undo last", "undo named", "redo last", "again"]),
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
        mine = [event for who, event in sent if who == user and event.verdict not in ("undo", "redo")]
        if verb == "again":
            if sent:
                sent.append(sent[which % len(sent)])
        elif verb == "undo last":
            sent.append((user, undo()))
        elif verb == "redo last":
            sent.append((user, redo()))
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


@pytest.fixture
def fresh(workspace) -> tuple[Workspace, list[int], int]:
    """Three candidates and one annotator without decisions."""
    ids = synthetic_candidates(workspace, 3, size=8)
    with workspace.write() as session:
        return workspace, ids, ensure_user(session).id


def test_redo_gives_the_undone_verdicts_again_last_undone_first(fresh):
    workspace, ids, user = fresh
    reasons = (Reason.SHADOW, Reason.ARTEFACT)
    record(workspace, [judge(workspace, ids[0], "accept"), judge(workspace, ids[1], "reject", reasons=reasons)], user)
    record(workspace, [undo(), undo()], user)
    with workspace.read() as session:
        (undone, decision) = last_undone(session, user)
        assert (undone.candidate_id, decision.verdict) == (ids[0], Verdict.ACCEPT)
    answers = record(workspace, [redo(), redo(), redo()], user)
    assert [(answer.status, answer.candidate_id, answer.standing) for answer in answers] == [
        (Status.STORED, ids[0], Verdict.ACCEPT),
        (Status.STORED, ids[1], Verdict.REJECT),
        (Status.REFUSED, None, None),
    ]
    assert isinstance(answers[2].refusal, NothingToRedo)
    assert standing(workspace)[ids[1], user][1] == [reason.value for reason in reasons]
    with workspace.read() as session:
        entries = history(session, ids[1], user)
        first, second, third = entries
        assert [(entry.via, entry.undone, entry.redone) for entry in entries] == [
            (Via.SINGLE, True, False),
            (Via.SINGLE, False, True),
            (Via.REDO, False, False),
        ]
        assert (second.undoes, third.redoes) == (first.uuid, second.uuid)
    # A redone verdict is undone and redone like any other.
    assert [answer.standing for answer in record(workspace, [undo(), redo()], user)] == [None, Verdict.REJECT]


def test_a_new_verdict_ends_what_could_be_redone(fresh):
    workspace, ids, user = fresh
    taken_back = undo()
    record(workspace, [judge(workspace, ids[0], "accept"), taken_back, judge(workspace, ids[1], "skip")], user)
    for event in (redo(), redo(taken_back.uuid)):
        (answer,) = record(workspace, [event], user)
        assert isinstance(answer.refusal, NothingToRedo)
        assert answer.refusal.field == "redoes"
    # Undoing the new verdict does not bring the old one back either.
    later = undo()
    (undone, redone) = record(workspace, [later, redo()], user)
    assert (undone.candidate_id, redone.candidate_id, redone.standing) == (ids[1], ids[1], Verdict.SKIP)


def test_redo_of_a_named_undo(fresh):
    workspace, ids, user = fresh
    with workspace.write() as session:
        other = ensure_user(session, "other").id
    first, second, elsewhere = undo(), undo(), undo()
    record(workspace, [judge(workspace, ids[0], "accept"), judge(workspace, ids[0], "skip"), first, second], user)
    record(workspace, [judge(workspace, ids[1], "skip"), elsewhere], other)
    refused = record(workspace, [redo(first.uuid), redo(elsewhere.uuid), redo(str(uuid.uuid4()))], user)
    assert [type(answer.refusal) for answer in refused] == [NothingToRedo] * 3, "the latest on its candidate, one's own"
    named = redo(second.uuid)
    answers = record(workspace, [named, named, redo(second.uuid), redo(first.uuid)], user)
    assert [(answer.status, answer.standing) for answer in answers] == [
        (Status.STORED, Verdict.ACCEPT),
        (Status.DUPLICATE, Verdict.ACCEPT),
        (Status.REFUSED, None),
        (Status.STORED, Verdict.SKIP),
    ]


def test_a_redo_may_name_its_candidate_and_image_and_must_name_them_right(fresh):
    workspace, ids, user = fresh
    record(workspace, [judge(workspace, ids[0], "accept"), undo()], user)
    wrong = [
        (DecisionEvent(str(uuid.uuid4()), "redo", ids[1]), NothingToRedo, "candidate_id"),
        (DecisionEvent(str(uuid.uuid4()), "redo", ids[0], "0" * 64), StaleResult, "result_sha256"),
        (DecisionEvent(str(uuid.uuid4()), "redo", reasons=["artefact"]), ReasonNotAllowed, "reasons"),
        (DecisionEvent(str(uuid.uuid4()), "redo", undoes=str(uuid.uuid4())), MalformedEvent, "undoes"),
        (DecisionEvent(str(uuid.uuid4()), "undo", redoes=str(uuid.uuid4())), MalformedEvent, "redoes"),
        (DecisionEvent(str(uuid.uuid4()), "redo", redoes="?"), MalformedEvent, "uuid"),
    ]
    for answer, (_, kind, field) in zip(record(workspace, [event for event, _, _ in wrong], user), wrong, strict=True):
        assert isinstance(answer.refusal, kind)
        assert answer.refusal.field == field
    right = DecisionEvent(str(uuid.uuid4()), "redo", ids[0], sha_of(workspace, ids[0]))
    assert record(workspace, [right], user)[0].status is Status.STORED
    (reused,) = record(workspace, [DecisionEvent(right.uuid, "accept", ids[0], sha_of(workspace, ids[0]))], user)
    assert isinstance(reused.refusal, UuidTaken), "a redo is not the verdict it gives"


def test_an_undone_verdict_on_another_image_is_not_given_again(fresh):
    workspace, ids, user = fresh
    record(workspace, [judge(workspace, ids[0], "accept"), undo()], user)
    with workspace.write() as session:
        session.get(Candidate, ids[0]).result_sha256 = "1" * 64
    (answer,) = record(workspace, [redo()], user)
    assert isinstance(answer.refusal, StaleResult)


def test_how_a_verdict_was_given_is_kept(fresh):
    workspace, ids, user = fresh
    events = [judge(workspace, ids[0], "accept", via=via) for via in ("single", "grid", "duplicates")]
    forbidden = [judge(workspace, ids[0], "accept", via=via) for via in ("redo", "thought")]
    answers = record(workspace, [*events, *forbidden], user)
    assert [answer.status for answer in answers] == [Status.STORED] * 3 + [Status.REFUSED] * 2
    assert {(type(answer.refusal), answer.refusal.field) for answer in answers[3:]} == {(MalformedEvent, "via")}
    with workspace.read() as session:
        assert [entry.via.value for entry in history(session, ids[0])] == ["single", "grid", "duplicates"]


def test_versions_of_a_candidate(fresh):
    workspace, ids, _ = fresh
    with workspace.write() as session:
        parent = session.get(Candidate, ids[1])
        columns = {column.name: getattr(parent, column.name) for column in Candidate.__table__.columns}
        remade = Candidate(**(columns | {"id": None, "version": 2, "parent_id": ids[1], "result_sha256": "2" * 64}))
        session.add(remade)
        session.flush()
        new = remade.id
    with workspace.read() as session:
        for either in (ids[1], new):
            lineage = versions(session, either)
            assert [(v.id, v.version, v.parent_id) for v in lineage] == [(ids[1], 1, None), (new, 2, ids[1])]
        assert [v.id for v in versions(session, ids[0])] == [ids[0]]
        assert versions(session, 10**9) == []
