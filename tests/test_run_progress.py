"""What a run says of itself: recent rate, time left, memory and states, with a made-up clock."""

from __future__ import annotations

import logging
import threading

import pytest

from db.models import State
from db.progress import NoProgress
from generation.gpu import GpuMemory
from generation.run_progress import GIB, RateMeter, RunProgress, duration_text, memory_text, rate_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard(NoProgress):
    def __init__(self) -> None:
        self.updates: list[tuple[int, int | None, str]] = []
        self.lines: list[str] = []

    def update(self, done, total, message=""):
        self.updates.append((done, total, message))

    def log(self, line):
        self.lines.append(line)


def test_the_rate_is_the_recent_one():
    clock = Clock()
    meter = RateMeter(clock)
    assert meter.per_second() is None
    for _ in range(100):  # one in ten seconds, as while a model is compiled
        clock.now += 10
        meter.add()
    assert meter.per_second() == pytest.approx(0.1)
    for _ in range(2000):  # then fifty a second
        clock.now += 0.02
        meter.add()
    assert meter.per_second() == pytest.approx(50, rel=0.01)
    clock.now += 30  # and now it stands still
    assert meter.per_second() == pytest.approx(25, rel=0.02)


def test_a_batch_that_arrives_at_once_does_not_make_the_rate_jump():
    clock = Clock()
    meter = RateMeter(clock)
    rates = []
    for _ in range(40):
        clock.now += 2
        for _ in range(8):
            meter.add()
        rates.append(meter.per_second())
    assert all(rate == pytest.approx(4, rel=0.15) for rate in rates[2:])


def run(passes: int, memory: GpuMemory | None = None) -> tuple[RunProgress, Heard, Clock]:
    clock, heard = Clock(), Heard()
    return RunProgress(heard, passes, clock=clock, memory=lambda: memory), heard, clock


def test_the_sentence_has_rate_time_left_memory_and_states():
    memory = GpuMemory("card", 10 * GIB, 11 * GIB + GIB // 2, 140 * GIB)
    progress, heard, clock = run(1, memory)
    progress.begin_pass("", 1000)
    assert heard.updates == [(0, 1000, "1000 sources to do")]
    for number in range(40):
        clock.now += 0.5
        progress.advance(State.NO_DETECTION if number % 4 == 3 else State.CANDIDATE)
    assert heard.updates[-1] == (
        40,
        1000,
        "2.0 images/s, about 8 min left, GPU memory 10.0 of 140 GiB (at most 11.5); 10 no detection, 30 candidate",
    )
    assert sum(progress.counts.values()) == 40


def test_without_a_gpu_and_at_the_end_there_is_less_to_say():
    progress, heard, clock = run(1)
    progress.begin_pass("", 1)
    clock.now += 20
    progress.advance(State.FAILED)
    assert heard.updates[-1] == (1, 1, "3.0 images/min; 1 failed")


def test_words_change_at_most_twice_a_second_and_numbers_always():
    progress, heard, clock = run(1)
    progress.begin_pass("", 10)
    for _ in range(10):
        clock.now += 0.125
        progress.advance(State.CANDIDATE)
    assert [done for done, *_ in heard.updates] == list(range(11))
    assert len({words for *_, words in heard.updates[:-1]}) <= 4
    assert heard.updates[-1][2].endswith("10 candidate"), "the last words are never old ones"


def test_a_source_that_ends_early_leaves_the_later_passes():
    progress, heard, clock = run(3)
    progress.begin_pass("mask", 10)
    assert heard.updates[-1][:2] == (0, 30)
    for state in [State.NO_DETECTION] * 4 + [None] * 6:
        clock.now += 1
        progress.advance(state)
    assert heard.updates[-1][:2] == (10, 22)
    assert heard.updates[-1][2].startswith("Pass 1 of 3, mask: 1.0 images/s, about 12 s left")
    progress.begin_pass("inpaint", 6)
    assert heard.updates[-1] == (10, 22, "Pass 2 of 3, inpaint: 6 sources to do")
    for _ in range(6):
        progress.advance(None)
    progress.begin_pass("score", 6)
    for _ in range(6):
        progress.advance(State.CANDIDATE)
    assert heard.updates[-1][:2] == (22, 22)


def test_what_models_warn_of_in_their_threads_is_kept_with_the_job():
    progress, heard, _ = run(1)
    progress.begin_pass("", 2)
    with progress.warnings_told():
        log = logging.getLogger("generation.devices")
        thread = threading.Thread(target=log.warning, args=("going on with %d", 4))
        thread.start()
        thread.join()
        log.info("nobody needs this")
        assert heard.lines == []
        progress.advance(State.CANDIDATE)
        assert heard.lines == ["going on with 4"]
        logging.getLogger("generation.compiling").warning("going on without it")
    assert heard.lines == ["going on with 4", "going on without it"]
    log.warning("after the run")
    assert len(heard.lines) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (90, "2 min"), (3599, "1 h 0 min"), (3 * 3600 + 300, "3 h 5 min")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_rates_and_memory():
    assert (rate_text(12.34), rate_text(0.1), rate_text(0.05)) == ("12.3 images/s", "0.1 images/s", "3.0 images/min")
    assert memory_text(GpuMemory("card", 0, GIB, 12 * GIB)) == "GPU memory 0.0 of 12 GiB (at most 1.0)"
