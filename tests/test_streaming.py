"""The stages' stream: order, back-pressure, errors, leaving early."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.streaming import Stage, stream

LONG = 3600.0  # a wait that no test would sit out
PATIENCE = 60.0


def finish(work):
    """What ``work`` returns or raises; TimeoutError when it is stuck, instead of a test run that never ends."""
    answer = Future()

    def run():
        try:
            answer.set_result(work())
        except BaseException as error:  # handed to the test's own thread
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(PATIENCE)


class Item:
    def __init__(self, number: int) -> None:
        self.number = number
        self.trail: list[str] = []


def _marker(name: str, pause: float = 0.0):
    def run(items):
        for item in items:
            if pause:
                time.sleep(random.random() * pause)
            item.trail.append(name)

    return run


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(0, 40),
    workers=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    batch=st.integers(1, 7),
    queue_size=st.integers(1, 5),
    fill=st.sampled_from([0.0, 0.002]),
)
def test_every_item_passes_every_stage_in_order(count, workers, batch, queue_size, fill):
    stages = [
        Stage(str(i), _marker(str(i), 0.001), batch=batch, workers=n, fill_seconds=fill) for i, n in enumerate(workers)
    ]
    items = [Item(n) for n in range(count)]
    out = list(stream(iter(items), stages, queue_size=queue_size))
    assert out == items
    assert all(item.trail == [str(i) for i in range(len(workers))] for item in out)
    assert all(stage.items == count and stage.batches <= count for stage in stages)
    assert all(stage.mean_batch <= batch for stage in stages)


def test_batches_are_never_larger_than_asked():
    sizes = []
    stage = Stage("slow", lambda items: (sizes.append(len(items)), time.sleep(0.005)), batch=4)
    assert len(list(stream(iter([Item(n) for n in range(50)]), [stage]))) == 50
    assert max(sizes) <= 4
    assert sum(sizes) == 50


@pytest.mark.parametrize("queue_size", [1, 2, 16])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_that_waits_gets_full_batches(workers, queue_size):
    sizes = []

    def items():
        for number in range(22):
            time.sleep(0.001)
            yield Item(number)

    stages = [
        Stage("decode", _marker("decode", 0.004), workers=3),
        Stage("model", lambda batch: sizes.append(len(batch)), batch=5, workers=workers, fill_seconds=LONG),
    ]
    out = finish(lambda: [item.number for item in stream(items(), stages, queue_size=queue_size)])
    assert out == list(range(22))
    # The end of the stream ends the waiting: the last batch goes on with what there is.
    assert sorted(sizes) == [2, 5, 5, 5, 5]


def test_a_batch_that_does_not_fill_goes_on_all_the_same():
    arrived = threading.Event()

    def items():
        yield Item(0)
        yield Item(1)
        assert arrived.wait(PATIENCE), "Both were held back until a third came."
        yield Item(2)

    def consume():
        numbers = []
        for item in stream(items(), [Stage("model", _marker("model"), batch=3, fill_seconds=0.01)]):
            numbers.append(item.number)
            if item.number == 1:
                arrived.set()
        return numbers

    assert finish(consume) == [0, 1, 2]


def test_what_is_ready_does_not_wait_for_what_is_not():
    arrived = threading.Event()

    def decode(batch):
        if batch[0].number == 1:
            assert arrived.wait(PATIENCE), "The first was held back by the second."

    def consume():
        stages = [Stage("decode", decode, workers=3), Stage("model", _marker("model"), batch=4)]
        numbers = []
        for item in stream((Item(number) for number in range(3)), stages):
            numbers.append(item.number)
            arrived.set()
        return numbers

    assert finish(consume) == [0, 1, 2]


def test_two_workers_have_two_batches_in_hand():
    both = threading.Barrier(2)
    stage = Stage("model", lambda batch: both.wait(PATIENCE), batch=4, workers=2, fill_seconds=LONG)
    out = finish(lambda: [item.number for item in stream((Item(n) for n in range(16)), [stage], queue_size=1)])
    assert out == list(range(16))
    assert (stage.batches, stage.items, stage.mean_batch) == (4, 16, 4.0)


def test_a_queue_holds_a_whole_batch_of_its_stage():
    fed = []
    go = threading.Event()

    def items():
        for number in range(12):
            fed.append(number)
            if number == 8:
                go.set()  # four in hand, four waiting, and the feeder with the next
            yield Item(number)

    def model(batch):
        assert go.wait(PATIENCE), "The queue before the stage is too short for its next batch."

    stages = [Stage("model", model, batch=4, fill_seconds=LONG)]
    assert len(finish(lambda: list(stream(items(), stages, queue_size=1)))) == 12


def test_a_full_queue_makes_the_feeder_wait():
    fed = []

    def items():
        for n in range(1000):
            fed.append(n)
            yield Item(n)

    running = stream(items(), [Stage("pass", _marker("pass"))], queue_size=2)
    next(running)
    time.sleep(0.3)
    assert len(fed) < 12
    running.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_stage_that_raises_ends_the_stream_with_its_error(workers, batch):
    def fail_at_7(items):
        if any(item.number == 7 for item in items):
            raise ValueError("number seven")

    with pytest.raises(ValueError, match="number seven"):
        list(stream((Item(n) for n in range(20)), [Stage("fail", fail_at_7, batch=batch, workers=workers)]))


def test_a_stages_own_timeout_is_its_error_not_a_wait():
    def fail(items):
        raise TimeoutError("the model's own")

    stages = [Stage("fail", fail, workers=2), Stage("next", _marker("next"), batch=4, fill_seconds=0.01)]
    with pytest.raises(TimeoutError, match="the model's own"):
        finish(lambda: list(stream((Item(n) for n in range(5)), stages)))


def test_an_error_in_the_source_is_raised_after_what_came_before():
    def items():
        yield Item(0)
        raise OSError("the disk is gone")

    running = stream(items(), [Stage("pass", _marker("pass"))])
    assert next(running).number == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(running)


def test_leaving_early_stops_every_thread():
    before = threading.active_count()
    running = stream((Item(n) for n in range(10_000)), [Stage("a", _marker("a")), Stage("b", _marker("b"), workers=2)])
    next(running)
    running.close()
    assert threading.active_count() == before
