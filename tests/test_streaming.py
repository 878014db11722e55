"""The stages' stream: order, back-pressure, errors, leaving early."""

from __future__ import annotations

import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.streaming import Stage, stream


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
)
def test_every_item_passes_every_stage_in_order(count, workers, batch, queue_size):
    stages = [Stage(str(i), _marker(str(i), 0.001), batch=batch, workers=n) for i, n in enumerate(workers)]
    items = [Item(n) for n in range(count)]
    out = list(stream(iter(items), stages, queue_size=queue_size))
    assert out == items
    assert all(item.trail == [str(i) for i in range(len(workers))] for item in out)


def test_batches_are_never_larger_than_asked():
    sizes = []
    stage = Stage("slow", lambda items: (sizes.append(len(items)), time.sleep(0.005)), batch=4)
    assert len(list(stream(iter([Item(n) for n in range(50)]), [stage]))) == 50
    assert max(sizes) <= 4
    assert sum(sizes) == 50


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
def test_a_stage_that_raises_ends_the_stream_with_its_error(workers):
    def fail_at_7(items):
        if any(item.number == 7 for item in items):
            raise ValueError("number seven")

    with pytest.raises(ValueError, match="number seven"):
        list(stream((Item(n) for n in range(20)), [Stage("fail", fail_at_7, workers=workers)]))


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
