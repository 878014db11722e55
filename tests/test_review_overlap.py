"""Who is asked for what: overlap, leases, gold items, replaced versions, and the progress that follows from it."""

from __future__ import annotations

import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import literal, select

from db.models import Candidate, Lease, utcnow
from db.queries import ensure_user
from db.workspace import Workspace
from review import remaining
from review.decisions import record
from review.events import DecisionEvent
from review.filters import QueueFilter, QueueState
from review.gold import set_gold
from review.leases import LEASE_SECONDS, release, renew, take_page
from review.orders import Order
from review.overlap import PRIME, Overlap, OverlapError, is_sampled, load_overlap, save_overlap
from review.progress import ACTIVE, annotators, counts_by_state, median_seconds, progress
from review.queue import next_items
from tests.browser import synthetic_candidates

WANTED = QueueFilter(recipe_id=1)


class Crew:
    """A workspace of six candidates and three annotators."""

    def __init__(self, workspace: Workspace, overlap: Overlap) -> None:
        self.workspace = workspace
        self.ids = synthetic_candidates(workspace, 6, size=8)
        with workspace.write() as session:
            save_overlap(session, overlap)
            self.users = [ensure_user(session, name).id for name in ("first", "second", "third")]
            self.sha = dict(session.execute(select(Candidate.id, Candidate.result_sha256)).all())

    def judge(self, user: int, number: int, verdict: str, elapsed_ms: int | None = None) -> None:
        reasons = ("artefact",) if verdict == "reject" else ()
        candidate_id = self.ids[number]
        event = DecisionEvent(
            str(uuid.uuid4()), verdict, candidate_id, self.sha[candidate_id], reasons, elapsed_ms=elapsed_ms
        )
        record(self.workspace, [event], self.users[user])

    def undo(self, user: int) -> None:
        record(self.workspace, [DecisionEvent(str(uuid.uuid4()), "undo")], self.users[user])

    def asked(self, user: int) -> list[int]:
        """The numbers of the candidates that the annotator is offered."""
        with self.workspace.read() as session:
            items = next_items(session, WANTED, self.users[user]).items
        return [self.ids.index(item.id) for item in items]

    def take(self, user: int, tab: str = "tab", limit: int = 50, now: dt.datetime | None = None) -> list[int]:
        page = take_page(self.workspace, WANTED, self.users[user], tab, limit=limit, now=now).page
        return [self.ids.index(item.id) for item in page.items]


@pytest.fixture
def crew(workspace) -> Crew:
    return Crew(workspace, Overlap())


@pytest.fixture
def pairs(workspace) -> Crew:
    """Every candidate wants two annotators."""
    return Crew(workspace, Overlap(share=1.0, k=2))


# ---- overlap ----


def test_settings_are_kept_and_checked(workspace):
    with workspace.write() as session:
        assert load_overlap(session) == Overlap(share=0.0, k=2, seed=0)
        save_overlap(session, Overlap(0.25, 3, 9))
    with workspace.read() as session:
        assert load_overlap(session) == Overlap(0.25, 3, 9)
    for values, name in (((1.5, 2, 0), "share"), ((0.1, 1, 0), "k"), ((0.1, 2, -1), "seed"), ((0.1, 2, PRIME), "seed")):
        with pytest.raises(OverlapError, match=name):
            Overlap(*values)


def test_the_sample_has_its_share_of_every_part(workspace):
    """By class, by half and by neighbourhood: the ids' order must not show in the sample."""
    ids = range(1, 20_001)
    numbers = select(literal(1).label("id")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.id + 1).where(numbers.c.id < len(ids)))
    drawn = {}
    with workspace.read() as session:
        for seed in (0, 1):
            query = select(numbers.c.id).where(is_sampled(numbers.c.id, Overlap(0.1, 2, seed)))
            drawn[seed] = set(session.scalars(query))
            assert set(session.scalars(query)) == drawn[seed], "the same each time"
        whole = select(numbers.c.id).where(is_sampled(numbers.c.id, Overlap(1.0)))
        assert len(session.scalars(whole).all()) == len(ids)
    for sample in drawn.values():
        assert len(sample) == pytest.approx(2000, abs=4 * 42)  # 42 is the binomial's standard deviation
        for part in (ids[:10_000], ids[10_000:], ids[::2], ids[1::2], ids[::50]):
            assert len(sample.intersection(part)) / len(part) == pytest.approx(0.1, abs=4 * (0.09 / len(part)) ** 0.5)
        following = sum(candidate + 1 in sample for candidate in sample) / len(sample)
        assert following == pytest.approx(0.1, abs=0.03)
    assert len(drawn[0] & drawn[1]) == pytest.approx(200, abs=60), "another seed draws independently"


def test_arithmetic_is_that_of_the_docstring(workspace):
    """(a x + b) ** 5 modulo 2**31 - 1 in Python's own integers, at ids where 64 bits would be short."""
    overlap = Overlap(0.5, 2, seed=PRIME - 1)
    shift = overlap.seed * 69_621 % PRIME + 12_345
    with workspace.read() as session:
        for candidate_id in (1, 2, 1000, 10**6, 2**31 - 2):
            sampled = session.scalar(select(is_sampled(literal(candidate_id), overlap)))
            expected = pow(1_103_515_245 * candidate_id + shift, 5, PRIME) < round(0.5 * PRIME)
            assert bool(sampled) == expected


def test_one_verdict_is_enough_without_overlap(crew):
    crew.judge(0, 0, "accept")
    crew.judge(0, 1, "skip")
    assert crew.asked(0) == [2, 3, 4, 5]
    assert crew.asked(1) == [1, 2, 3, 4, 5], "a skip is no answer"
    with crew.workspace.read() as session:
        counts = counts_by_state(session, WANTED, crew.users[1])
        page = next_items(session, QueueFilter(QueueState.NOT_ASKED, recipe_id=1), crew.users[1])
    assert (counts[QueueState.NOT_ASKED], counts[QueueState.UNREVIEWED]) == (1, 5)
    assert [item.id for item in page.items] == [crew.ids[0]]
    crew.undo(0)
    crew.undo(0)
    assert crew.asked(1) == [0, 1, 2, 3, 4, 5], "an undo opens it again"


def test_overlap_asks_for_as_many_as_it_wants(pairs):
    for user in (0, 1):
        pairs.judge(user, 0, "accept")
    pairs.judge(0, 1, "reject")
    assert pairs.asked(2) == [1, 2, 3, 4, 5]
    assert pairs.asked(1) == [1, 2, 3, 4, 5]
    pairs.judge(2, 1, "accept")
    assert pairs.asked(1) == [2, 3, 4, 5]


def test_gold_items_are_asked_of_everybody(crew):
    with crew.workspace.write() as session:
        set_gold(session, crew.ids[3], "accept")
    for user in (0, 1):
        assert 3 in crew.asked(user)
        assert 3 in crew.take(user), "also while somebody else has it"
        crew.judge(user, 3, "accept")
        assert 3 not in crew.asked(user)
    with crew.workspace.read() as session:
        together = progress(session, WANTED, crew.users[0]).together
    assert (together.wanted, together.left) == (6, 5), "more answers than wanted do not count"


def test_a_replaced_version_is_asked_of_nobody(crew):
    with crew.workspace.write() as session:
        parent = session.get(Candidate, crew.ids[2])
        columns = {column.name: getattr(parent, column.name) for column in Candidate.__table__.columns}
        session.add(
            Candidate(**(columns | {"id": None, "version": 2, "parent_id": parent.id, "result_sha256": "2" * 64}))
        )
        session.flush()
        crew.ids.append(session.scalar(select(Candidate.id).where(Candidate.version == 2)))
    assert crew.asked(0) == [0, 1, 3, 4, 5, 6]
    with crew.workspace.read() as session:
        found = progress(session, WANTED, crew.users[0])
    assert (found.counts[QueueState.UNREVIEWED], found.counts[QueueState.NOT_ASKED]) == (6, 1)
    assert found.together.wanted == 6


def test_the_last_ones_are_remembered_and_what_may_come_back_is_looked_at(crew, monkeypatch):
    searches = []
    search = remaining._left
    monkeypatch.setattr(remaining, "_left", lambda *given: searches.append(1) or search(*given))
    for number in range(4):
        crew.judge(0, number, "accept")
    assert crew.asked(0) == [4, 5] and len(searches) == 1
    crew.judge(0, 4, "reject")
    assert crew.asked(0) == [5]
    crew.undo(0)
    assert crew.asked(0) == [4, 5], "an undone one is back"
    with crew.workspace.write() as session:
        set_gold(session, crew.ids[1], "accept")
    crew.judge(1, 5, "skip")
    assert crew.asked(0) == [4, 5], "a skip of somebody else's is no answer"
    assert len(searches) == 1, "all candidates were gone through once"
    assert crew.asked(1) == [1, 4], "one's own skip is one, and a gold item is asked of everybody"
    with crew.workspace.write() as session:
        save_overlap(session, Overlap(share=1.0, k=2))
    assert crew.asked(1) == [0, 1, 2, 3, 4] and len(searches) == 3, "other settings, another search"


def test_more_changes_than_are_kept_make_a_new_search(crew, monkeypatch):
    monkeypatch.setattr(remaining, "MOST", 2)
    for number in range(4):
        crew.judge(0, number, "accept")
    assert crew.asked(0) == [4, 5]
    for number in (4, 5):
        crew.judge(0, number, "accept")
    for _ in range(3):
        crew.undo(0)
    assert crew.asked(0) == [3, 4, 5], "many again"
    crew.judge(0, 3, "accept")
    assert crew.asked(0) == [4, 5]


# ---- leases ----


def test_what_one_has_nobody_else_is_offered(crew):
    assert crew.take(0, limit=2) == [0, 1]
    assert crew.take(1, limit=2) == [2, 3]
    assert crew.take(0, "other tab", limit=9) == [4, 5], "nor another tab of the same person"
    assert crew.take(0, limit=2) == [0, 1], "but the same tab, after a reload"
    assert crew.asked(0) == [0, 1, 2, 3, 4, 5], "without a tab leases do not matter"
    crew.judge(0, 0, "accept")
    with crew.workspace.read() as session:
        assert session.get(Lease, (crew.ids[0], crew.users[0])) is None, "a verdict ends the lease"
    crew.undo(0)
    assert crew.take(2) == [0]


def test_a_lease_runs_out_unless_it_is_renewed(crew):
    start = utcnow()
    later = start + dt.timedelta(seconds=LEASE_SECONDS - 1)
    after = start + dt.timedelta(seconds=LEASE_SECONDS + 1)
    assert crew.take(0, limit=3, now=start) == [0, 1, 2]
    kept = renew(crew.workspace, crew.ids[:1], crew.users[0], "tab", now=later)
    assert (kept.leased, kept.lost) == ([crew.ids[0]], [])
    assert kept.until == later + dt.timedelta(seconds=LEASE_SECONDS)
    assert crew.take(1, limit=2, now=after) == [1, 2], "two ran out, one did not"
    crew.judge(0, 3, "accept")
    answer = renew(crew.workspace, crew.ids[:4], crew.users[0], "tab", now=after)
    assert (answer.leased, answer.lost) == ([crew.ids[0]], crew.ids[1:3]), "what one has judged is in neither"


def test_a_tab_gives_back_some_or_all(crew):
    crew.take(0, limit=4)
    crew.take(0, "other", limit=1)
    assert release(crew.workspace, crew.users[0], "tab", crew.ids[:2]) == 2
    assert crew.take(1) == [0, 1, 5]
    assert release(crew.workspace, crew.users[0], "tab") == 2
    assert release(crew.workspace, crew.users[0], "tab") == 0
    assert crew.take(2) == [2, 3]


def test_leases_count_as_answers_to_come(pairs):
    pairs.judge(0, 0, "accept")
    assert pairs.take(1, limit=2) == [0, 1]
    assert pairs.take(2, limit=9) == [1, 2, 3, 4, 5], "of the first, one answer and one lease are two"
    assert pairs.take(0) == [2, 3, 4, 5], "the second is with two others"


def test_only_unreviewed_candidates_are_leased(crew):
    crew.judge(0, 0, "accept")
    answer = take_page(crew.workspace, QueueFilter(QueueState.ACCEPTED, recipe_id=1), crew.users[0], "tab")
    assert [item.id for item in answer.page.items] == [crew.ids[0]]
    assert answer.until is None
    with crew.workspace.read() as session:
        assert session.scalars(select(Lease)).all() == []


def test_a_page_that_others_took_is_passed_over(crew, monkeypatch):
    """Between looking and leasing somebody else takes the whole page: the next one is given instead."""
    seen = []

    def slow(session, *arguments, **options):
        page = next_items(session, *arguments, **options)
        seen.append(len(page.items))
        if len(seen) == 1:
            assert crew.take(1, limit=2) == [0, 1]
        return page

    monkeypatch.setattr("review.leases.next_items", slow)
    assert crew.take(0, limit=2) == [2, 3]


def test_ten_at_once_never_get_the_same(workspace):
    ids = synthetic_candidates(workspace, 30, size=8)
    with workspace.write() as session:
        users = [ensure_user(session, f"annotator {number}").id for number in range(10)]

    def work(user: int) -> list[int]:
        taken = []
        for order in (Order.ID, Order.RANDOM, Order.DROP):
            page = take_page(workspace, WANTED, user, "tab", limit=len(taken) + 1, order=order).page
            taken = [item.id for item in page.items]
        return taken

    with ThreadPoolExecutor(10) as pool:
        taken = list(pool.map(work, users))
    with workspace.read() as session:
        leases = session.execute(select(Lease.candidate_id, Lease.user_id)).all()
    assert len({lease.candidate_id for lease in leases}) == len(leases)
    assert {(candidate, user) for user, mine in zip(users, taken, strict=True) for candidate in mine} <= set(
        map(tuple, leases)
    )
    assert set().union(*map(set, taken)) <= set(ids)


# ---- progress ----


def test_progress_and_the_time_left(pairs):
    for number, elapsed in enumerate((1000, 3000, 2000)):
        pairs.judge(0, number, "accept", elapsed)
    pairs.judge(1, 0, "reject", 4000)
    pairs.judge(1, 1, "skip", None)
    with pairs.workspace.read() as session:
        found = progress(session, WANTED, pairs.users[0])
        assert median_seconds(session, pairs.users[:1]) == 2.0
        idle = progress(session, WANTED, pairs.users[2], now=utcnow() + ACTIVE)
        rows = annotators(session, WANTED)
    together = found.together
    assert (together.wanted, together.decided, together.left, together.active) == (12, 4, 8, 2)
    assert together.median_seconds == 2.5, "the median of 1, 2, 3 and 4 seconds"
    assert together.seconds_left == 8 * 2.5 / 2
    assert (found.counts[QueueState.UNREVIEWED], found.counts[QueueState.ACCEPTED]) == (3, 3)
    assert (idle.together.active, idle.together.median_seconds, idle.together.seconds_left) == (0, None, None)
    assert [(row.name, row.accepted, row.rejected, row.skipped, row.median_seconds) for row in rows] == [
        ("first", 3, 0, 0, 2.0),
        ("second", 0, 1, 1, 4.0),
    ]


def test_counts_are_of_the_filters_candidates(crew):
    crew.judge(0, 0, "accept")
    crew.judge(1, 1, "accept")
    with crew.workspace.read() as session:
        found = progress(session, QueueFilter(recipe_id=1, drop_max=1.0), crew.users[0])
    assert found.counts == {
        QueueState.UNREVIEWED: 1,
        QueueState.ACCEPTED: 1,
        QueueState.REJECTED: 0,
        QueueState.SKIPPED: 0,
        QueueState.NOT_ASKED: 1,
        QueueState.AUTO: 0,
        QueueState.ALL: 3,
    }
    assert (found.together.wanted, found.together.decided) == (3, 2)
