"""The final word on disagreements, and gold items with how annotators do on them."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from db.models import Candidate, CurrentVerdict, Role, User, Verdict
from db.queries import ensure_user
from review.adjudication import adjudicate, disagreement_count, disagreements
from review.decisions import Status, record
from review.events import (
    DecisionEvent,
    MalformedEvent,
    NothingToUndo,
    ReasonMissing,
    StaleResult,
    UnknownCandidate,
    UuidTaken,
)
from review.gold import gold_report, list_gold, remove_gold, set_gold
from review.history import adjudications
from review.roles import NotAllowed, role_of
from tests.browser import synthetic_candidates

# By candidate, what the first and the second annotator say.
SAID = [
    ("accept", "reject"),
    ("accept", "accept"),
    ("reject", "accept"),
    ("accept", "skip"),
    ("skip", "reject"),
    ("reject", "reject"),
    ("reject", "accept"),
    ("accept", None),
]


class Panel:
    """Eight candidates that two annotators have judged, and an adjudicator."""

    def __init__(self, workspace) -> None:
        self.workspace = workspace
        self.ids = synthetic_candidates(workspace, len(SAID), size=8)
        with workspace.write() as session:
            self.first, self.second = (ensure_user(session, name).id for name in ("first", "second"))
            judge = User(name="judge", role=Role.ADJUDICATOR, password_hash="x")
            session.add(judge)
            session.flush()
            self.judge = judge.id
            self.sha = dict(session.execute(select(Candidate.id, Candidate.result_sha256)).all())
        for user, verdicts in zip((self.first, self.second), zip(*SAID, strict=True), strict=True):
            events = []
            for candidate_id, verdict in zip(self.ids, verdicts, strict=True):
                if verdict is not None:
                    reasons = ("artefact",) if verdict == "reject" else ()
                    sha = self.sha[candidate_id]
                    events.append(DecisionEvent(str(uuid.uuid4()), verdict, candidate_id, sha, reasons))
            record(workspace, events, user)

    def open(self, **options) -> list[int]:
        with self.workspace.read() as session:
            numbers, cursor = [], None
            while True:
                page = disagreements(session, 1, self.judge, cursor, 2, **options)
                numbers += [self.ids.index(entry.item.id) for entry in page.disagreements]
                cursor = page.cursor
                if cursor is None:
                    assert disagreement_count(session, 1, **options) == len(numbers)
                    return numbers

    def say(self, number: int, verdict: str, identifier: str | None = None, **values):
        reasons = ("wrong_mask",) if verdict == "reject" else ()
        candidate_id = self.ids[number]
        values = {"reasons": reasons, "result_sha256": self.sha[candidate_id], "user_id": self.judge} | values
        return adjudicate(self.workspace, identifier or str(uuid.uuid4()), candidate_id, verdict=verdict, **values)


@pytest.fixture
def panel(workspace) -> Panel:
    return Panel(workspace)


def test_disagreements_are_those_with_an_accept_and_a_reject(panel):
    assert panel.open() == [0, 2, 6]
    assert panel.open(with_skips=True) == [0, 2, 3, 4, 6]
    with panel.workspace.read() as session:
        assert disagreements(session, 99, panel.judge).disagreements == []
        (first, *_) = disagreements(session, None, panel.judge).disagreements
    assert {opinion.annotator for opinion in first.opinions} == {"annotator 1", "annotator 2"}
    said = {opinion.verdict: opinion.reasons for opinion in first.opinions}
    assert said == {Verdict.ACCEPT: [], Verdict.REJECT: ["artefact"]}
    assert first.item.verdict is None, "the adjudicator's own"


def test_a_pseudonym_does_not_follow_a_person(workspace):
    ids = synthetic_candidates(workspace, 12, size=8)
    with workspace.write() as session:
        users = [ensure_user(session, name).id for name in ("first", "second")]
        sha = dict(session.execute(select(Candidate.id, Candidate.result_sha256)).all())
    for user, verdict, reasons in zip(users, ("accept", "reject"), ((), ("artefact",)), strict=True):
        record(workspace, [DecisionEvent(str(uuid.uuid4()), verdict, i, sha[i], reasons) for i in ids], user)
    with workspace.read() as session:
        page = disagreements(session, 1, users[0]).disagreements
    first = {entry.opinions[0].verdict for entry in page}
    assert first == {Verdict.ACCEPT, Verdict.REJECT}, "annotator 1 is now one and now the other"


def test_a_final_word_closes_and_an_undo_opens_again(panel):
    answer = panel.say(0, "reject", note="the fin is still there")
    assert (answer.status, answer.standing) == (Status.STORED, Verdict.REJECT)
    assert panel.open() == [2, 6]
    assert panel.say(0, "accept").standing is Verdict.ACCEPT, "the latest stands"
    assert panel.say(0, "undo", result_sha256=None).standing is None
    assert panel.open() == [0, 2, 6]
    with pytest.raises(NothingToUndo):
        panel.say(0, "undo")
    with panel.workspace.read() as session:
        entries = adjudications(session, panel.ids[0])
        assert [(entry.verdict.value, entry.stands, entry.user_name) for entry in entries] == [
            ("reject", False, "judge"),
            ("accept", False, "judge"),
            ("undo", False, "judge"),
        ]
        assert (entries[0].note, entries[0].reasons) == ("the fin is still there", ["wrong_mask"])
        rows = session.scalars(select(CurrentVerdict).where(CurrentVerdict.candidate_id == panel.ids[0]))
        assert sorted(row.verdict.value for row in rows) == ["accept", "reject"], "what they said stays"
    panel.say(0, "accept")
    with panel.workspace.read() as session:
        assert [entry.stands for entry in adjudications(session, panel.ids[0])] == [False, False, False, True]


def test_the_same_adjudication_twice_is_one(panel):
    identifier = str(uuid.uuid4())
    assert panel.say(2, "accept", identifier).status is Status.STORED
    panel.say(2, "reject")
    again = panel.say(2, "accept", identifier)
    assert (again.status, again.standing) == (Status.DUPLICATE, Verdict.REJECT)
    with pytest.raises(UuidTaken):
        panel.say(6, "accept", identifier)
    with pytest.raises(DBAPIError, match="append-only"), panel.workspace.write() as session:
        session.execute(text("DELETE FROM adjudications"))


def test_what_is_no_adjudication_is_refused(panel):
    cases = [
        ({"verdict": "skip"}, MalformedEvent, "verdict"),
        ({"verdict": "accept", "identifier": "?"}, MalformedEvent, "uuid"),
        ({"verdict": "accept", "note": "x" * 2001}, MalformedEvent, "note"),
        ({"verdict": "reject", "reasons": ()}, ReasonMissing, "reasons"),
        ({"verdict": "accept", "result_sha256": "0" * 64}, StaleResult, "result_sha256"),
        ({"verdict": "accept", "result_sha256": None}, StaleResult, "result_sha256"),
    ]
    for values, kind, field in cases:
        with pytest.raises(kind) as caught:
            panel.say(0, **values)
        assert caught.value.field == field
    with pytest.raises(UnknownCandidate):
        adjudicate(panel.workspace, str(uuid.uuid4()), 10**9, panel.judge, "accept")
    assert panel.open() == [0, 2, 6], "nothing of it was kept"


def test_only_adjudicators_have_the_final_word(panel):
    with pytest.raises(NotAllowed, match="adjudicator"):
        panel.say(0, "accept", user_id=panel.first)
    with panel.workspace.write() as session:
        local = ensure_user(session)
        assert role_of(local) is Role.ADMIN, "without accounts this machine's user may do everything"
        local_id = local.id
    assert panel.say(0, "accept", user_id=local_id).status is Status.STORED
    with panel.workspace.write() as session:
        session.get(User, local_id).password_hash = "x"
        assert role_of(session.get(User, local_id)) is Role.ANNOTATOR, "with a password it is an account like others"


# ---- gold items ----


def test_gold_items_measure_each_annotator(panel):
    with panel.workspace.write() as session:
        for number, right in ((0, "accept"), (1, "reject"), (2, "accept"), (3, "accept"), (7, "accept")):
            reasons = ("object_left",) if right == "reject" else ()
            set_gold(session, panel.ids[number], right, reasons, "sure", "judge")
    with panel.workspace.read() as session:
        scores = {score.name: score for score in gold_report(session)}
        entries = list_gold(session)
    # first: accept accept reject accept accept; second: reject accept accept skip, and nothing.
    first, second = scores["first"], scores["second"]
    assert (first.judged, first.correct, first.wrong_accepts, first.wrong_rejects, first.skipped) == (5, 3, 1, 1, 0)
    assert (second.judged, second.correct, second.wrong_accepts, second.wrong_rejects, second.skipped) == (
        3,
        1,
        1,
        1,
        1,
    )
    assert first.accuracy == pytest.approx(0.6)
    # Clopper-Pearson for 3 of 5, as tabulated.
    assert (first.low, first.high) == pytest.approx((0.1466, 0.9473), abs=5e-5)
    assert [entry.candidate_id for entry in entries] == [panel.ids[number] for number in (0, 1, 2, 3, 7)]
    assert (entries[1].reasons, entries[1].note, entries[1].created_by) == (["object_left"], "sure", "judge")
    with panel.workspace.write() as session:
        set_gold(session, panel.ids[1], "accept")
        assert remove_gold(session, panel.ids[0])
        assert not remove_gold(session, panel.ids[0])
    with panel.workspace.read() as session:
        (first, _) = gold_report(session)
        assert (first.judged, first.correct) == (4, 3)


def test_what_is_no_gold_item_is_refused(panel):
    cases = [
        ((panel.ids[0], "skip"), MalformedEvent),
        ((panel.ids[0], "reject"), ReasonMissing),
        ((10**9, "accept"), UnknownCandidate),
    ]
    for arguments, kind in cases:
        with pytest.raises(kind), panel.workspace.write() as session:
            set_gold(session, *arguments)
    with panel.workspace.read() as session:
        assert (list_gold(session), gold_report(session)) == ([], [])


def test_an_annotator_who_only_skips_has_no_accuracy(panel):
    with panel.workspace.write() as session:
        set_gold(session, panel.ids[4], "accept")
    with panel.workspace.read() as session:
        first = gold_report(session)[0]
    assert (first.judged, first.skipped, first.accuracy, first.low) == (0, 1, None, None)
