"""Generation: pending sources in, candidates and named states out, resumable at any moment.

Decoding, masking, inpainting, scoring, encoding and committing run at the same time. A source's row is
committed after its files are on disk, in the order of the sources; so whatever kills a run, the
next one does exactly what is missing.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy import select

from db.models import Candidate, Outcome, Recipe, State
from db.progress import NoProgress, Progress
from db.queries import ACTIVE_RECIPE, set_meta, state_counts
from db.workspace import Workspace
from generation.artifacts import CACHE, MODEL_CACHE, remove_stale_parts
from generation.backends import Backends, BackendsInTurn, load_backends
from generation.gpu import Card, CudaCard, forget_peak, gpu_memory
from generation.passes import WHOLE_RUN, Pass, RunSettings, StageSettings, image_size, plan_passes, stage_settings
from generation.recipe import RecipeOptions
from generation.run_progress import RunProgress
from generation.selection import Selection, pending_work, select_sources
from generation.steps import Steps, Work, guarded
from generation.streaming import Stage, stream
from generation.tuning import BatchTuner

__all__ = ["GenerationResult", "GenerationStopped", "RunSettings", "Selection", "ensure_recipe", "generate"]

COMMIT_BATCH = 16
COMMIT_SECONDS = 1.0
MAX_FAILURES_IN_A_ROW = 25


class GenerationStopped(RuntimeError):
    """So many images in a row failed that the fault is not theirs."""


@dataclass(frozen=True)
class GenerationResult:
    """What a run did.

    ``made`` sources reached a state in it, ``states`` counts all sources. ``busy_seconds`` is by stage, over
    all passes; ``seconds`` and ``images_per_s`` are of the whole run without the loading of the first models.
    ``batches`` is the mean batch by stage, ``tuning`` each model's batch size and where it comes from, ``gpu``
    the card's name and its memory in bytes, the run's peak among them (None without one).
    """

    recipe_hash: str
    made: int
    states: dict[str, int]
    busy_seconds: dict[str, float]
    seconds: float = 0.0
    images_per_s: float = 0.0
    passes: tuple[str, ...] = ()
    batches: dict[str, float] = field(default_factory=dict)
    tuning: dict[str, dict] = field(default_factory=dict)
    gpu: dict[str, object] | None = None


def ensure_recipe(workspace: Workspace, options: RecipeOptions, backends: Backends | BackendsInTurn) -> Recipe:
    """The stored recipe of these options and backends, made if new, and set as the active one."""
    recipe_hash, config = backends.recipe(options)
    with workspace.write() as session:
        recipe = session.scalar(select(Recipe).where(Recipe.hash == recipe_hash))
        if recipe is None:
            recipe = Recipe(hash=recipe_hash, config=config)
            session.add(recipe)
            session.flush()
        set_meta(session, ACTIVE_RECIPE, str(recipe.id))
    return recipe


def generate(
    workspace: Workspace,
    options: RecipeOptions,
    selection: Selection | None = None,
    *,
    progress: Progress | None = None,
    backends: Backends | BackendsInTurn | None = None,
    settings: RunSettings | None = None,
    card: Callable[[], Card] = CudaCard,
) -> GenerationResult:
    """Bring every selected pending source to its state under the recipe.

    ``backends`` are loaded as ``settings`` ask when not given; a low-memory run wants a :class:`BackendsInTurn`, or
    none, and leaves nothing in memory. ``card`` is the GPU whose batch sizes are tuned.

    Raises :class:`db.progress.Cancelled` when ``progress`` says so, :class:`GenerationStopped` when nothing but
    failures comes out, and :class:`db.training_guard.UnknownFewShotSet`; what is finished by then is committed
    either way.
    """
    progress = progress or NoProgress()
    settings = settings or RunSettings()
    if backends is None:
        progress.update(0, None, "Loading the models")
        load = BackendsInTurn if settings.low_memory else load_backends
        backends = load(options, workspace.root / MODEL_CACHE, compiled=settings.compiled)
    recipe = ensure_recipe(workspace, options, backends)
    remove_stale_parts(workspace.root)
    sources = select_sources(workspace, recipe, selection or Selection())
    run = _Run(workspace, options, recipe, backends, settings, progress, card)
    forget_peak()
    start = time.perf_counter()
    try:
        with run.progress.warnings_told():
            for one in run.passes:
                sources = run.go(one, sources)
    finally:
        if settings.low_memory:
            backends.hold()
    seconds = time.perf_counter() - start
    with workspace.read() as session:
        states = {state.value: count for state, count in state_counts(session, recipe).items()}
    memory = gpu_memory()
    return GenerationResult(
        recipe.hash,
        run.made,
        states,
        {name: round(busy, 3) for name, busy in run.busy_seconds.items()},
        seconds=round(seconds, 3),
        images_per_s=round(run.made / seconds, 3),
        passes=tuple(one.name for one in run.passes if one.name),
        batches={name: round(count / run.batches[name], 2) for name, count in run.batched.items()},
        tuning={part: settled.as_dict() for part, settled in run.tuner.settled.items()},
        gpu=None if memory is None else asdict(memory),
    )


class _Run:
    """One call of :func:`generate`: its passes, and what they add up to."""

    def __init__(
        self,
        workspace: Workspace,
        options: RecipeOptions,
        recipe: Recipe,
        backends: Backends | BackendsInTurn,
        settings: RunSettings,
        progress: Progress,
        card: Callable[[], Card],
    ) -> None:
        self._workspace = workspace
        self._options = options
        self._recipe = recipe
        self._backends = backends
        self._settings = settings
        self._steps = Steps(workspace, options, backends)
        self._timings: dict[int, dict[str, float]] = {}
        self.passes = plan_passes(options, backends, low_memory=settings.low_memory)
        self.progress = RunProgress(progress, len(self.passes))
        self.tuner = BatchTuner(settings.batch, workspace.root / CACHE, card)
        self.made = 0
        self.busy_seconds: Counter[str] = Counter()
        self.batches: Counter[str] = Counter()
        self.batched: Counter[str] = Counter()

    def go(self, one: Pass, sources: list[int]) -> list[int]:
        """Take the sources through the pass; gives those that a later one goes on with."""
        self.progress.begin_pass(one.name, len(sources))
        if not sources:
            return sources
        stages = make_stages(self._steps, one, self._make_ready(one))
        work = pending_work(self._workspace, self._recipe, sources, self._timings)
        committer = _Committer(self._workspace, self._recipe, self._steps)
        going_on: list[int] = []
        failures = 0
        finished = stream(work, stages)
        try:
            for item in finished:
                if item.open:
                    going_on.append(item.source.id)
                    self._timings[item.source.id] = item.timings
                    item.forget_pixels()
                else:
                    committer.add(item)
                    self.made += 1
                failures = failures + 1 if item.state is State.FAILED else 0
                if item.state is State.FAILED:
                    self.progress.log(f"{item.source.name}: {item.reason}")
                if failures >= MAX_FAILURES_IN_A_ROW:
                    raise GenerationStopped(
                        f"{failures} images in a row failed, the last with: {item.reason} "
                        "Mend the cause, then run again with --redo-failed."
                    )
                self.progress.advance(item.state)
        finally:
            finished.close()
            committer.flush()
            for stage in stages:
                self.busy_seconds[stage.name] += stage.busy_seconds
                self.batches[stage.name] += stage.batches
                self.batched[stage.name] += stage.items
        return going_on

    def _make_ready(self, one: Pass) -> dict[str, StageSettings]:
        """Have the pass's models in memory, and their batch sizes as they should be."""
        if self._settings.low_memory:
            self.progress.say("Loading the models")
        self._backends.hold(*one.parts)
        knobs = self._backends.batch_knobs(image_size(self._options))
        fed = {stage for knob in knobs if knob.on_gpu for stage in knob.stages if stage in one.steps}
        at_once = sum(stage.workers for name, stage in stage_settings(knobs, 1).items() if name in fed)
        self.tuner.settle(knobs, at_once=max(1, at_once), say=self.progress.say)
        return stage_settings(knobs, self._settings.batch)


def make_stages(
    steps: Steps,
    one: Pass = WHOLE_RUN,
    settings: Mapping[str, StageSettings] | None = None,
    *,
    io_workers: int | None = None,
) -> list[Stage[Work]]:
    """The stages of a pass, in order. Decoding and writing use a few threads, models what ``settings`` says."""
    settings = stage_settings([], "auto") if settings is None else settings
    threads = StageSettings(1, workers=io_workers or max(2, min(8, os.cpu_count() or 2)))
    stages = []
    for step in one.steps:
        name = "write" if step == "keep" else step
        stages.append(Stage(name, guarded(name, getattr(steps, step)), **asdict(settings.get(step, threads))))
    return stages


class _Committer:
    """Collects finished work and writes its rows: a batch a transaction, and none waits longer than a second
    after a later one is done."""

    def __init__(self, workspace: Workspace, recipe: Recipe, steps: Steps) -> None:
        self._workspace = workspace
        self._recipe_id = recipe.id
        self._steps = steps
        self._waiting: list[tuple[Candidate | None, Outcome]] = []
        self._flushed_at = time.monotonic()

    def add(self, item: Work) -> None:
        made = item.state is State.CANDIDATE
        candidate = self._steps.candidate_row(item, self._recipe_id) if made else None
        outcome = Outcome(source_id=item.source.id, recipe_id=self._recipe_id, state=item.state, reason=item.reason)
        item.forget_pixels()
        self._waiting.append((candidate, outcome))
        if len(self._waiting) >= COMMIT_BATCH or time.monotonic() - self._flushed_at >= COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        with self._workspace.write() as session:
            for candidate, outcome in self._waiting:
                if session.get(Outcome, (outcome.source_id, outcome.recipe_id)) is not None:
                    continue  # another run on the same recipe was faster
                if candidate is not None:
                    session.add(candidate)
                    session.flush()
                    outcome.candidate_id = candidate.id
                session.add(outcome)
        self._waiting.clear()
        self._flushed_at = time.monotonic()
