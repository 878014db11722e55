"""Generation: pending sources in, candidates and named states out, resumable at any moment.

Decoding, masking, inpainting, scoring, encoding and committing run at the same time. A source's row is
committed after its files are on disk, in the order of the sources; so whatever kills a run, the
next one does exactly what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from db.models import Candidate, Outcome, Recipe, SourceImage, State
from db.progress import NoProgress, Progress
from db.queries import ACTIVE_RECIPE, class_names, set_meta, state_counts
from db.workspace import Workspace
from generation.artifacts import MODEL_CACHE, remove_stale_parts
from generation.backends import Backends, load_backends
from generation.recipe import RecipeOptions
from generation.steps import Steps, Work, guarded
from generation.streaming import Stage, stream

COMMIT_BATCH = 16
COMMIT_SECONDS = 1.0
PAGE = 500
MAX_FAILURES_IN_A_ROW = 25


class GenerationStopped(RuntimeError):
    """So many images in a row failed that the fault is not theirs."""


@dataclass(frozen=True)
class GenerationResult:
    """What a run did: ``made`` sources reached a state in it; ``states`` counts all sources; seconds by stage."""

    recipe_hash: str
    made: int
    states: dict[str, int]
    busy_seconds: dict[str, float]


@dataclass(frozen=True)
class Selection:
    """Which pending sources a run takes: at most ``limit``, of these ``classes`` (indices), failed ones too or not."""

    limit: int | None = None
    classes: tuple[int, ...] | None = None
    redo_failed: bool = False


def ensure_recipe(workspace: Workspace, options: RecipeOptions, backends: Backends) -> Recipe:
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
    backends: Backends | None = None,
) -> GenerationResult:
    """Bring every selected pending source to its state under the recipe.

    Raises :class:`db.progress.Cancelled` when ``progress`` says so and :class:`GenerationStopped` when
    nothing but failures comes out; what is finished by then is committed either way.
    """
    progress = progress or NoProgress()
    selection = selection or Selection()
    if backends is None:
        progress.update(0, None, "Loading the models")
        backends = load_backends(options, workspace.root / MODEL_CACHE)
    recipe = ensure_recipe(workspace, options, backends)
    remove_stale_parts(workspace.root)
    if selection.redo_failed:
        _forget_failures(workspace, recipe)
    total = _pending_count(workspace, recipe, selection)
    steps = Steps(workspace, options, backends)
    stages = make_stages(steps)
    done, failures = 0, 0
    progress.update(0, total, f"{total} sources to do")
    committer = _Committer(workspace, recipe, steps)
    finished = stream(_pending(workspace, recipe, selection), stages)
    try:
        for item in finished:
            committer.add(item)
            done += 1
            if item.state is State.FAILED:
                failures += 1
                progress.log(f"{item.source.name}: {item.reason}")
            else:
                failures = 0
            if failures >= MAX_FAILURES_IN_A_ROW:
                raise GenerationStopped(
                    f"{failures} images in a row failed, the last with: {item.reason} "
                    "Mend the cause, then run again with --redo-failed."
                )
            progress.update(done, total, _rate_message(committer))
    finally:
        finished.close()
        committer.flush()
    with workspace.read() as session:
        states = {state.value: count for state, count in state_counts(session, recipe).items()}
    return GenerationResult(recipe.hash, done, states, {s.name: round(s.busy_seconds, 3) for s in stages})


def make_stages(steps: Steps, *, io_workers: int | None = None) -> list[Stage[Work]]:
    """The stages of a run, in order. Decoding and writing use a few threads, each model one."""
    workers = io_workers or max(2, min(8, os.cpu_count() or 2))
    return [
        Stage("decode", guarded("decode", steps.decode), workers=workers),
        Stage("mask", guarded("mask", steps.mask), batch=8),
        Stage("inpaint", guarded("inpaint", steps.inpaint), batch=1),
        Stage("score", guarded("score", steps.score), batch=8),
        Stage("write", guarded("write", steps.write), workers=workers),
    ]


def _rate_message(committer: _Committer) -> str:
    counts = ", ".join(f"{count} {state.value}" for state, count in committer.counts.items() if count)
    return counts.replace("_", " ")


class _Committer:
    """Collects finished work and writes its rows: a batch a transaction, and none waits longer than a second
    after a later one is done."""

    def __init__(self, workspace: Workspace, recipe: Recipe, steps: Steps) -> None:
        self._workspace = workspace
        self._recipe_id = recipe.id
        self._steps = steps
        self._waiting: list[tuple[Candidate | None, Outcome]] = []
        self.counts = dict.fromkeys(State, 0)
        self._flushed_at = time.monotonic()

    def add(self, item: Work) -> None:
        made = item.state is State.CANDIDATE
        candidate = self._steps.candidate_row(item, self._recipe_id) if made else None
        outcome = Outcome(source_id=item.source.id, recipe_id=self._recipe_id, state=item.state, reason=item.reason)
        item.forget_pixels()
        self.counts[item.state] += 1
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


def _pending_query(recipe_id: int, selection: Selection):
    outcome = select(Outcome.source_id).where(Outcome.recipe_id == recipe_id)
    query = select(SourceImage).where(SourceImage.id.not_in(outcome))
    if selection.classes is not None:
        query = query.where(SourceImage.class_index.in_(selection.classes))
    return query


def _pending_count(workspace: Workspace, recipe: Recipe, selection: Selection) -> int:
    with workspace.read() as session:
        query = _pending_query(recipe.id, selection).with_only_columns(func.count(), maintain_column_froms=True)
        count = session.scalar(query) or 0
    return count if selection.limit is None else min(count, selection.limit)


def _pending(workspace: Workspace, recipe: Recipe, selection: Selection) -> Iterator[Work]:
    """Pending sources by id, a page at a time, so that no transaction stays open during the run."""
    left = selection.limit
    last_id = 0
    with workspace.read() as session:
        names = class_names(session)
    while left is None or left > 0:
        page = _pending_query(recipe.id, selection).where(SourceImage.id > last_id).order_by(SourceImage.id)
        with workspace.read() as session:
            sources = list(session.scalars(page.limit(PAGE if left is None else min(PAGE, left))))
            session.expunge_all()
        if not sources:
            return
        for source in sources:
            yield Work(source, names[source.class_index])
        last_id = sources[-1].id
        left = None if left is None else left - len(sources)


def _forget_failures(workspace: Workspace, recipe: Recipe) -> None:
    with workspace.write() as session:
        session.execute(delete(Outcome).where(Outcome.recipe_id == recipe.id, Outcome.state == State.FAILED))
