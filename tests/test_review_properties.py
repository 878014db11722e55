"""Whatever several people do, in whatever order and however often it is sent: what must always hold, holds.

The model is an editor's: for every annotator the verdicts in order, a stack for undo and a stack for redo.
"""

from __future__ import annotations

import atexit
import datetime as dt
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import func, select

from db.models import Candidate, CurrentVerdict, Decision, Lease, Role, User, utcnow
from db.workspace import open_workspace
from review.adjudication import adjudicate
from review.decisions import DecisionResult, Status, rebuild_current_verdicts, record
from review.events import DecisionEvent, DecisionRefused
from review.filters import QueueFilter, QueueState
from review.gold import set_gold
from review.leases import LEASE_SECONDS, release, renew, take_page
from review.overlap import Overlap, is_sampled, save_overlap
from review.progress import progress
from tests.browser import synthetic_candidates

CANDIDATES = 5
ANNOTATORS = 3
TABS = ("left", "right")
WANTED = QueueFilter(recipe_id=1)

users = st.sampled_from([0, 0, 0, *range(1, ANNOTATORS)])  # the first does most, so that their stacks grow
candidates = st.sampled_from([0, 0, 1, *range(CANDIDATES)])
verdicts = st.sampled_from(["accept", "reject", "skip"])
tabs = st.sampled_from(TABS)
some = st.sets(candidates, min_size=1)


class Template:
    """A workspace made once; every run of the machine works on a copy of its database."""

    folder: Path | None = None

    @classmethod
    def copy_to(cls, target: Path) -> None:
        if cls.folder is None:
            cls.folder = Path(tempfile.mkdtemp(prefix="review-template-"))
            atexit.register(shutil.rmtree, cls.folder)
            workspace = open_workspace(cls.folder)
            synthetic_candidates(workspace, CANDIDATES, size=8)
            with workspace.write() as session:
                session.add_all(User(name=f"annotator {n}", password_hash="x") for n in range(ANNOTATORS))
                session.add(User(name="judge", role=Role.ADJUDICATOR, password_hash="x"))
            workspace.close()
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(cls.folder / "workspace.db", target)


@dataclass
class Given:
    """A verdict in the model; ``undone`` when it does not stand."""

    uuid: str
    candidate: int
    verdict: str
    undone: bool = False


@dataclass
class Annotator:
    """The model of one annotator: all verdicts in order, and the undos that can be redone, each with its verdict."""

    given: list[Given] = field(default_factory=list)
    redoable: list[tuple[str, Given]] = field(default_factory=list)

    def standing(self, candidate: int) -> Given | None:
        on_it = [given for given in self.given if given.candidate == candidate and not given.undone]
        return on_it[-1] if on_it else None

    def last(self) -> Given | None:
        return next((given for given in reversed(self.given) if not given.undone), None)


class Review(RuleBasedStateMachine):
    events = Bundle("events")

    @initialize(
        share=st.sampled_from([0.0, 0.5, 1.0]),
        k=st.sampled_from([2, 2, 3]),
        seed=st.integers(0, 99),
        gold=st.booleans(),
    )
    def start(self, share, k, seed, gold):
        self.folder = Path(tempfile.mkdtemp(prefix="review-"))
        Template.copy_to(self.folder)
        self.workspace = open_workspace(self.folder)
        self.now = utcnow()
        overlap = Overlap(share, k, seed)
        with self.workspace.write() as session:
            save_overlap(session, overlap)
            self.ids = list(session.scalars(select(Candidate.id).order_by(Candidate.id)))
            self.sha = dict(session.execute(select(Candidate.id, Candidate.result_sha256)).all())
            self.users = list(session.scalars(select(User.id).order_by(User.id)))
            if gold:
                set_gold(session, self.ids[0], "accept")
            sampled = dict(session.execute(select(Candidate.id, is_sampled(Candidate.id, overlap))).all())
        self.gold = {0} if gold else set()
        self.wants = [overlap.k if share and sampled[candidate_id] else 1 for candidate_id in self.ids]
        self.people = [Annotator() for _ in range(ANNOTATORS)]
        self.stored: dict[str, int] = {}
        self.leases: dict[tuple[int, int], tuple[str, dt.datetime]] = {}
        self.words: list[list[str]] = [[] for _ in range(CANDIDATES)]
        self.adjudicated: list[tuple[str, int, str]] = []
        self.steps = 0

    def teardown(self):
        if hasattr(self, "workspace"):
            self.workspace.close()
            shutil.rmtree(self.folder)

    # ---- decisions ----

    def send(self, user: int, event: DecisionEvent, expected: Given | None) -> None:
        """Send an event that must be stored as ``expected`` (its candidate and what then stands), or be refused."""
        known = event.uuid in self.stored
        (answer,) = record(self.workspace, [event], self.users[user])
        if known:
            assert answer.status is Status.DUPLICATE
        elif expected is None:
            assert answer.status is Status.REFUSED
            return
        else:
            assert answer.status is Status.STORED
            self.stored[event.uuid] = expected.candidate
        self.check_answer(answer, user, self.stored[event.uuid])

    def check_answer(self, answer: DecisionResult, user: int, candidate: int) -> None:
        stands = self.people[user].standing(candidate)
        assert answer.candidate_id == self.ids[candidate]
        assert answer.standing == (stands.verdict if stands else None)
        if stands:
            self.leases.pop((user, candidate), None)

    @rule(target=events, user=users, given=st.lists(st.tuples(candidates, verdicts), min_size=1, max_size=4))
    def judge(self, user, given):
        return multiple(*((user, self.decide(user, *one)) for one in given))

    def decide(self, user: int, candidate: int, verdict: str) -> DecisionEvent:
        candidate_id = self.ids[candidate]
        reasons = ("artefact",) if verdict == "reject" else ()
        event = DecisionEvent(str(uuid.uuid4()), verdict, candidate_id, self.sha[candidate_id], reasons)
        given = Given(event.uuid, candidate, verdict)
        self.people[user].given.append(given)
        self.people[user].redoable.clear()
        self.send(user, event, given)
        return event

    @rule(target=events, user=users, candidate=st.none() | candidates)
    def undo(self, user, candidate):
        """The last verdict, or the one that stands on a candidate."""
        person = self.people[user]
        target = person.last() if candidate is None else person.standing(candidate)
        if candidate is not None and target is None:
            return multiple()
        event = DecisionEvent(str(uuid.uuid4()), "undo", undoes=target.uuid if candidate is not None else None)
        if target is not None:
            target.undone = True
            person.redoable.append((event.uuid, target))
        self.send(user, event, target)
        return user, event

    @rule(target=events, user=users, back=st.none() | st.integers(0, 3))
    def redo(self, user, back):
        """The last undo, or a named earlier one: only the latest on its candidate may be taken back."""
        person = self.people[user]
        if back is not None and back >= len(person.redoable):
            return multiple()
        place = len(person.redoable) - 1 - (back or 0)
        undone = person.redoable[place] if person.redoable else None
        event = DecisionEvent(str(uuid.uuid4()), "redo", redoes=undone[0] if back is not None else None)
        again = None
        if undone is not None:
            later = [given.candidate for _, given in person.redoable[place + 1 :]]
            if undone[1].candidate not in later:
                again = Given(event.uuid, undone[1].candidate, undone[1].verdict)
                person.given.append(again)
                del person.redoable[place]
        self.send(user, event, again)
        return user, event

    @rule(user=users, candidate=candidates, other=candidates)
    def change_ones_mind(self, user, candidate, other):
        """After an undo and a new verdict, what was undone is gone for good: the model's stack is empty."""
        self.decide(user, candidate, "accept")
        self.undo(user, None)
        self.decide(user, other, "reject")
        assert not self.people[user].redoable
        self.redo(user, None)

    @rule(sent=events)
    def send_again(self, sent):
        """A lost answer makes the client send an event again: nothing may change, and the answer is of today."""
        user, event = sent
        if event.uuid in self.stored:
            self.send(user, event, None)

    # ---- leases ----

    def answers(self, candidate: int) -> int:
        stands = [person.standing(candidate) for person in self.people]
        return sum(given is not None and given.verdict != "skip" for given in stands)

    def holders(self, candidate: int) -> set[int]:
        return {user for (user, held), (_, until) in self.leases.items() if held == candidate and until > self.now}

    def may_take(self, user: int, tab: str) -> list[int]:
        free = []
        for candidate in range(CANDIDATES):
            taken = self.answers(candidate) + len(self.holders(candidate) - {user})
            own = self.leases.get((user, candidate))
            in_other_tab = own is not None and own[0] != tab and own[1] > self.now
            asked = self.people[user].standing(candidate) is None
            if asked and not in_other_tab and (taken < self.wants[candidate] or candidate in self.gold):
                free.append(candidate)
        return free

    def lease(self, user: int, tab: str, taken: list[int]) -> None:
        for candidate in taken:
            self.leases[user, candidate] = (tab, self.now + dt.timedelta(seconds=LEASE_SECONDS))

    @rule(user=users, tab=tabs)
    def take(self, user, tab):
        expected = self.may_take(user, tab)
        answer = take_page(self.workspace, WANTED, self.users[user], tab, limit=50, now=self.now)
        assert [item.id for item in answer.page.items] == [self.ids[candidate] for candidate in expected]
        self.lease(user, tab, expected)

    @rule(user=users, tab=tabs, wanted=some)
    def renew(self, user, tab, wanted):
        expected = sorted(wanted.intersection(self.may_take(user, tab)))
        ids = [self.ids[candidate] for candidate in sorted(wanted)]
        answer = renew(self.workspace, ids, self.users[user], tab, now=self.now)
        assert answer.leased == [self.ids[candidate] for candidate in expected]
        judged = {candidate for candidate in wanted if self.people[user].standing(candidate)}
        assert answer.lost == [self.ids[candidate] for candidate in sorted(wanted - set(expected) - judged)]
        self.lease(user, tab, expected)

    @rule(user=users, tab=tabs, given=st.none() | some)
    def release(self, user, tab, given):
        ids = None if given is None else [self.ids[candidate] for candidate in given]
        release(self.workspace, self.users[user], tab, ids)
        for candidate in range(CANDIDATES) if given is None else given:
            if self.leases.get((user, candidate), ("", None))[0] == tab:
                del self.leases[user, candidate]

    @rule(seconds=st.sampled_from([1, LEASE_SECONDS // 2, LEASE_SECONDS]))
    def time_passes(self, seconds):
        self.now += dt.timedelta(seconds=seconds)

    # ---- adjudication ----

    @rule(candidate=candidates, verdict=st.sampled_from(["accept", "reject", "undo"]))
    def adjudicate(self, candidate, verdict):
        identifier = str(uuid.uuid4())
        if verdict == "undo" and self.words[candidate][-1:] in ([], ["undo"]):
            try:
                self.say(identifier, candidate, verdict)
            except DecisionRefused:
                return
            raise AssertionError("there was nothing to undo")
        self.words[candidate].append(verdict)
        self.adjudicated.append((identifier, candidate, verdict))
        assert self.say(identifier, candidate, verdict) is Status.STORED

    @rule(data=st.data())
    def adjudicate_again(self, data):
        if self.adjudicated:
            assert self.say(*data.draw(st.sampled_from(self.adjudicated))) is Status.DUPLICATE

    def say(self, identifier: str, candidate: int, verdict: str) -> Status:
        candidate_id = self.ids[candidate]
        reasons = ("artefact",) if verdict == "reject" else ()
        judge = self.users[-1]
        answer = adjudicate(
            self.workspace, identifier, candidate_id, judge, verdict, reasons, "", self.sha[candidate_id]
        )
        last = self.words[candidate][-1]
        assert answer.standing == (None if last == "undo" else last)
        return answer.status

    # ---- what always holds ----

    @invariant()
    def what_stands_is_what_the_model_says(self):
        expected = {
            (self.ids[candidate], self.users[user]): given.verdict
            for user, person in enumerate(self.people)
            for candidate in range(CANDIDATES)
            if (given := person.standing(candidate)) is not None
        }
        made_anew = self.steps % 4 == 0
        self.steps += 1
        with self.workspace.write() as session:
            for _ in range(2 if made_anew else 1):  # as kept, and as made anew from the decisions
                rows = session.execute(
                    select(CurrentVerdict.candidate_id, CurrentVerdict.user_id, CurrentVerdict.verdict)
                ).all()
                assert len(rows) == len(expected), "one current verdict an annotator and candidate"
                assert {(row.candidate_id, row.user_id): row.verdict.value for row in rows} == expected
                if made_anew:
                    rebuild_current_verdicts(session)
            assert session.scalar(select(func.count()).select_from(Decision)) == len(self.stored)

    @invariant()
    def counts_add_up(self):
        if self.steps % 2:
            return  # every other time, for the time it takes
        asking = self.steps // 2 % ANNOTATORS
        user, person = self.users[asking], self.people[asking]
        with self.workspace.read() as session:
            found = progress(session, WANTED, user, now=self.now)
        counts = dict(found.counts)
        assert counts.pop(QueueState.ALL) == sum(counts.values()) == CANDIDATES
        stands = [person.standing(candidate) for candidate in range(CANDIDATES)]
        for state, verdict in (("accepted", "accept"), ("rejected", "reject"), ("skipped", "skip")):
            assert counts[QueueState(state)] == sum(given is not None and given.verdict == verdict for given in stands)
        together = found.together
        left = [max(wants - self.answers(number), 0) for number, wants in enumerate(self.wants)]
        assert (together.wanted, together.left) == (sum(self.wants), sum(left))
        assert together.decided + together.left == together.wanted

    @invariant()
    def nobody_holds_what_somebody_else_does(self):
        with self.workspace.read() as session:
            active = session.execute(select(Lease.candidate_id, Lease.user_id).where(Lease.until > self.now)).all()
        held = {candidate: self.holders(candidate) for candidate in range(CANDIDATES)}
        expected = {(self.ids[candidate], self.users[user]) for candidate, holders in held.items() for user in holders}
        assert {tuple(row) for row in active} == expected
        for candidate, holders in held.items():
            assert len(holders) <= self.wants[candidate] or candidate in self.gold
            assert all(self.people[user].standing(candidate) is None for user in holders)


Review.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestReview = Review.TestCase
