"""Batch sizes that suit the machine: found on a GPU by a short probe, remembered in the workspace.

A batch is doubled while images a second grow by more than 5 % and memory allows. None of it enters the
recipe: batch-N equals batch-1. On a CPU a batch gains nothing and the defaults stay.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from db.files import atomic_write
from generation.gpu import Card
from generation.recipe import canonical_hash

GAIN = 1.05
LARGEST_BATCH = 256
TIMED_RUNS = 3
# Of the memory that the loaded models leave, all that run at once may fill this share.
MEMORY_SHARE = 0.9
TUNING_FORMAT = 1

Clock = Callable[[], float]
log = logging.getLogger(__name__)


class BatchSize:
    """The most items that go through a model at once. Raises ValueError for a default below 1."""

    def __init__(self, default: int) -> None:
        if default < 1:
            raise ValueError(f"A batch size must be at least 1, got {default}.")
        self.default = default
        self.now = default

    def set(self, size: int) -> None:
        self.now = size

    def reset(self) -> None:
        self.now = self.default


@dataclass(frozen=True)
class BatchKnob:
    """A batch size of a loaded model that can be tuned.

    ``part`` names the model and ``stages`` the stages of the pipeline that feed it. ``facts`` (JSON-able) is
    what the best size depends on beside the machine: fingerprint, image size, dtype, compiled or not.
    ``try_batch(n)`` puts n images of that size through and returns when they are done. ``lay_out(True)`` has its
    convolutions in channels_last, ``lay_out(False)`` not, and None as it was constructed.
    """

    part: str
    stages: tuple[str, ...]
    size: BatchSize
    on_gpu: bool
    facts: Mapping[str, object]
    try_batch: Callable[[int], object]
    lay_out: Callable[[bool | None], None]


@runtime_checkable
class Tunable(Protocol):
    """A backend with batch sizes to tune."""

    def batch_knobs(self, image_size: tuple[int, int]) -> Sequence[BatchKnob]:
        """One a model, for images of ``image_size`` (height, width)."""
        ...


@dataclass(frozen=True)
class Trial:
    """One batch size tried: the share of the card's memory is everybody's, 0 to 1."""

    batch: int
    images_per_s: float
    memory_share: float


@dataclass(frozen=True)
class Tuned:
    """The batch size chosen, why no larger one, and what was tried (``in_channels_last``: with that layout)."""

    batch: int
    stopped: Literal["no faster", "memory", "out of memory", "largest"]
    trials: tuple[Trial, ...] = ()
    channels_last: bool = False
    in_channels_last: Trial | None = None

    @classmethod
    def from_dict(cls, values: dict) -> Tuned:
        """From JSON. TypeError or KeyError when it is none of ours."""
        other = values["in_channels_last"]
        return cls(
            int(values["batch"]),
            values["stopped"],
            tuple(Trial(**trial) for trial in values["trials"]),
            bool(values["channels_last"]),
            None if other is None else Trial(**other),
        )


@dataclass(frozen=True)
class Probe:
    """Tries batch sizes on ``card``. A batch beyond ``limit``, a share of the card's memory, is not taken."""

    card: Card
    limit: float
    clock: Clock = time.perf_counter
    largest: int = LARGEST_BATCH

    def find(self, knob: BatchKnob) -> Tuned:
        """The size, and whether channels_last pays with it. Leaves the knob's layout as it found best."""
        knob.lay_out(False)
        trials: list[Trial] = []
        best: Trial | None = None
        stopped = "largest"
        size = 1
        while size <= self.largest:
            trial = self._try(knob, size)
            if trial is None:
                stopped = "out of memory"
                break
            trials.append(trial)
            if best is not None and trial.memory_share > self.limit:
                stopped = "memory"
                break
            if best is not None and trial.images_per_s <= GAIN * best.images_per_s:
                stopped = "no faster"
                break
            best = trial
            size *= 2
        if best is None:
            return Tuned(1, stopped, tuple(trials))
        other = self._in_channels_last(knob, best)
        pays = other is not None and other.images_per_s > GAIN * best.images_per_s and other.memory_share <= self.limit
        knob.lay_out(pays)
        return Tuned(best.batch, stopped, tuple(trials), pays, other)

    def _in_channels_last(self, knob: BatchKnob, best: Trial) -> Trial | None:
        knob.lay_out(True)
        return self._try(knob, best.batch)

    def _try(self, knob: BatchKnob, size: int) -> Trial | None:
        """The best of a few runs after one that chooses kernels and takes memory; None when that runs out."""
        self.card.empty()
        try:
            knob.try_batch(size)
            seconds = min(self._timed(knob, size) for _ in range(TIMED_RUNS))
            return Trial(size, size / max(seconds, 1e-9), self.card.used_share())
        except RuntimeError as error:
            if not self.card.ran_out(error):
                raise
        # Outside the handler: until it ends, the error's traceback keeps the failed batch's tensors alive.
        self.card.empty()
        return None

    def _timed(self, knob: BatchKnob, size: int) -> float:
        start = self.clock()
        knob.try_batch(size)
        return self.clock() - start


class TuningRecord:
    """What the probes of a workspace found on one kind of card: ``cache/tuning-<card>.json``.

    Kept by what each result depends on; a damaged file counts as empty and is replaced.
    """

    def __init__(self, cache: Path, card: Card) -> None:
        self._card = card
        name = re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-") or "gpu"
        self.path = cache / f"tuning-{name}.json"

    def find(self, facts: Mapping[str, object]) -> Tuned | None:
        entry = self._read().get(self._key(facts))
        if entry is None:
            return None
        try:
            return Tuned.from_dict(entry["found"])
        except (KeyError, TypeError, ValueError):
            return None

    def keep(self, facts: Mapping[str, object], found: Tuned) -> None:
        entries = {**self._read(), self._key(facts): {**facts, "found": asdict(found)}}
        content = {"format": TUNING_FORMAT, "card": self._card.name, "entries": entries}
        atomic_write(self.path, json.dumps(content, indent=1, sort_keys=True).encode())

    def _key(self, facts: Mapping[str, object]) -> str:
        return canonical_hash({"card": self._card.name, "bytes": self._card.total_bytes, "facts": dict(facts)})

    def _read(self) -> dict[str, dict]:
        try:
            content = json.loads(self.path.read_bytes())
            entries = content["entries"] if content["format"] == TUNING_FORMAT else {}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return entries if isinstance(entries, dict) else {}


@dataclass(frozen=True)
class SettledBatch:
    """A model's batch size for this run and where it comes from."""

    batch: int
    source: Literal["default", "given", "probe", "recorded"]
    tuned: Tuned | None = None

    def as_dict(self) -> dict[str, object]:
        facts: dict[str, object] = {"batch": self.batch, "from": self.source}
        if self.tuned is not None:
            facts |= {
                "channels_last": self.tuned.channels_last,
                "stopped": self.tuned.stopped,
                "trials": [asdict(trial) for trial in self.tuned.trials],
            }
        return facts


@dataclass
class BatchTuner:
    """Sets the batch sizes of loaded models. ``card`` is asked for only when one of them is on a GPU.

    ``batch`` is "auto" (probe or record on a GPU, the defaults elsewhere) or one size for all.
    """

    batch: int | Literal["auto"]
    cache: Path
    card: Callable[[], Card]
    clock: Clock = time.perf_counter
    settled: dict[str, SettledBatch] = field(default_factory=dict)

    def settle(self, knobs: Sequence[BatchKnob], *, at_once: int, say: Callable[[str], None]) -> None:
        """Bring every knob to its size. ``at_once`` batches may be in memory together; ``say`` tells what is tried.

        Each may take its share of the memory that the loaded models leave.
        """
        for knob in knobs:
            knob.lay_out(None)
            knob.size.reset()
            if self.batch != "auto":
                knob.size.set(self.batch)
                self.settled[knob.part] = SettledBatch(self.batch, "given")
            elif not knob.on_gpu:
                self.settled[knob.part] = SettledBatch(knob.size.now, "default")
        if self.batch == "auto" and any(knob.on_gpu for knob in knobs):
            self._tune([knob for knob in knobs if knob.on_gpu], at_once, say)

    def _tune(self, knobs: Iterable[BatchKnob], at_once: int, say: Callable[[str], None]) -> None:
        card = self.card()
        record = TuningRecord(self.cache, card)
        card.empty()
        taken = card.used_share()
        limit = taken + max(0.0, MEMORY_SHARE - taken) / at_once
        for knob in knobs:
            facts = {**knob.facts, "part": knob.part, "at_once": at_once}
            found, source = record.find(facts), "recorded"
            if found is None:
                say(f"Finding the batch size of the {knob.part}")
                found, source = Probe(card, limit, self.clock).find(knob), "probe"
                record.keep(facts, found)
                log.info("Batch size of the %s: %d (%s).", knob.part, found.batch, found.stopped)
            knob.lay_out(found.channels_last)
            knob.size.set(found.batch)
            self.settled[knob.part] = SettledBatch(found.batch, source, found)
        card.empty()
