"""One run of an ID augmentation: passes, waves and rounds, in which what was kept decides what is drawn next."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from sqlalchemy import func, select

from db.models import Candidate, Outcome, Recipe, State, utcnow
from db.progress import Progress
from db.training_guard import NOISE_OPTION
from db.training_queries import TrainingCandidate, TrainingData
from db.workspace import Workspace
from generation.protocols import Scorer
from generation.pseudo_ood.committing import Committer, Variant, first_candidates
from generation.pseudo_ood.id_aug_options import (
    BACKGROUND_OPTION,
    OPTION_NAMES,
    TEXTURE_OPTION,
    IdAugOptions,
    IdAugResult,
    Pass,
    PassResult,
)
from generation.pseudo_ood.id_aug_pool import GroundPool
from generation.pseudo_ood.id_aug_steps import IdAugSteps, Try, generator
from generation.pseudo_ood.models import Similarity
from generation.streaming import stream


@dataclass
class _PassState:
    """What a pass has come to: ``made`` of ``target`` kept, ``tries`` composites looked at in this run; by source, how
    often and on what it was tried; and the sources to be tried again in the next round."""

    one: Pass
    target: int
    pool: GroundPool | None
    tried: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    attempts: Counter[int] = field(default_factory=Counter)
    again: set[int] = field(default_factory=set)
    made: int = 0
    tries: int = 0


class IdAugRun:
    """One run over a few-shot set, under one recipe."""

    def __init__(
        self,
        workspace: Workspace,
        options: IdAugOptions,
        data: TrainingData,
        recipe: Recipe,
        similarity: Similarity,
        scorer: Scorer,
        progress: Progress,
    ) -> None:
        self._workspace = workspace
        self._options = options
        self._recipe = recipe
        self._progress = progress
        self._images = data.backgrounds
        self._large = [row for row in data.backgrounds if row.candidate.area >= options.min_object_area]
        self._pools = {
            BACKGROUND_OPTION: GroundPool(workspace, [row.candidate for row in data.backgrounds]),
            TEXTURE_OPTION: GroundPool(workspace, [row.candidate for row in data.textures]),
            NOISE_OPTION: None,
        }
        self._steps = IdAugSteps(workspace, options, similarity, scorer)
        self._committer = Committer(workspace, recipe.id)
        self._known = self._made_before()
        # By option and source: what an image stands on already, so that a later pass gives it another.
        self._kept: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        self._ended: dict[int, str] = {}
        self._tries: Counter[int] = Counter()
        self._made_now = 0

    def _made_before(self) -> dict[tuple[int, int], Candidate]:
        with self._workspace.read() as session:
            made = session.scalars(select(Candidate).where(Candidate.recipe_id == self._recipe.id))
            return {(one.source_id, one.variant): one for one in made}

    def is_finished(self) -> bool:
        """Whether a run came to its end: the outcomes are written together, after everything else."""
        first = select(Outcome.source_id).where(Outcome.recipe_id == self._recipe.id).limit(1)
        with self._workspace.read() as session:
            return session.scalar(first) is not None

    def run(self) -> None:
        try:
            for one in self._options.passes():
                self._run_pass(one)
        finally:
            self._committer.flush()
        self._write_outcomes()

    def _target(self, one: Pass) -> int:
        return int(len(self._images) * one.rate)

    def _run_pass(self, one: Pass) -> None:
        """Waves of images, in an order drawn by seed, until as many are kept as the option's rate asks for."""
        pool = self._pools[one.option]
        if pool is not None:
            pool.start_pass()
        state = _PassState(one, self._target(one), pool)
        for (option, source_id), kept in self._kept.items():
            if option == one.option:
                state.tried[source_id] |= kept
        order = sorted(self._large, key=lambda row: self._place(one, row))
        while state.made < state.target and order:
            wave, order = order[: state.target - state.made], order[state.target - state.made :]
            while wave:
                wave = self._run_round(state, wave)
        self._tries[one.variant] = state.tries

    def _place(self, one: Pass, row: TrainingCandidate) -> bytes:
        text = f"{self._options.seed} {one.option} {one.repeat} {row.source.sha256}"
        return hashlib.sha256(text.encode()).digest()

    def _run_round(self, state: _PassState, wave: list[TrainingCandidate]) -> list[TrainingCandidate]:
        """One try for each image of the wave; those that have more tries left and need them."""
        returned: list[int] = []
        finished = stream(self._draw(state, wave), self._steps.stages())
        with closing(finished):
            for item in finished:
                state.tries += not item.known
                if item.state is State.FAILED:
                    self._ended[item.source.id] = item.reason
                    self._progress.log(f"{item.source.name}: {item.reason}")
                elif not item.rejected:
                    self._keep(state, item)
                elif state.attempts[item.source.id] < self._options.tries:
                    state.again.add(item.source.id)
                else:
                    limit = f"{self._options.min_similarity:g}"
                    self._ended[item.source.id] = f"No composite came to a similarity of {limit}."
                if item.ground is not None and (item.rejected or item.state is State.FAILED):
                    returned.append(item.ground.index)
                item.forget_pixels()
                self._committer.check_failures(item)
                self._tell(state)
        # Only now: the draws of this round were made ahead of it, in another thread.
        if state.pool is not None:
            state.pool.end_round(returned)
        again, state.again = state.again, set()
        return [row for row in wave if row.source.id in again]

    def _draw(self, state: _PassState, wave: list[TrainingCandidate]) -> Iterator[Try]:
        """A background for each image. One for which none is left leaves the pass; one for which all that would do
        are with other images waits for the next round."""
        one = state.one
        for row in wave:
            source, ground = row.source, None
            attempt = state.attempts[source.id] + 1
            if state.pool is not None:
                rng = generator(self._options.seed, one.option, one.repeat, attempt, source.sha256)
                tried = state.tried[source.id]
                ground = state.pool.draw(rng, source.class_index, tried)
                if ground is None and state.pool.may_come_back(source.class_index, tried):
                    state.again.add(source.id)
                    continue
                if ground is None:
                    self._ended[source.id] = "No background of another class was left to try."
                    continue
                tried.add(ground.index)
            state.attempts[source.id] = attempt
            known = self._known.get((source.id, one.variant))
            details = {
                "option": one.option,
                "repeat": one.repeat,
                "try": attempt,
                "background_candidate_id": None if ground is None else ground.candidate.id,
                "mask_candidate_id": row.candidate.id,
            }
            yield Try(
                source,
                source.image_class.name,
                background=row.candidate,
                variants=[Variant(one.variant, details)],
                ground=ground,
                known=known is not None,
                rejected=known is not None and known.details["try"] != attempt,
            )

    def _keep(self, state: _PassState, item: Try) -> None:
        state.made += 1
        if item.ground is not None:
            self._kept[state.one.option, item.source.id].add(item.ground.index)
        if not item.known:
            self._made_now += 1
            self._committer.add(self._steps.rows(item, self._recipe.id))

    def _tell(self, state: _PassState) -> None:
        passes = self._options.passes()
        # A target may lie above what the objects' sizes allow; the bar ends where the run can end.
        reachable = [min(self._target(one), len(self._large)) for one in passes]
        before, total = sum(reachable[: state.one.variant]), sum(reachable)
        name = OPTION_NAMES[state.one.option]
        self._progress.update(before + state.made, total, f"{name}: {state.made} kept of {state.tries} tries")

    def _write_outcomes(self) -> None:
        with self._workspace.write() as session:
            first = first_candidates(session, self._recipe.id)
            for row in self._images:
                ended = self._outcome(row, first.get(row.source.id))
                if ended is not None:
                    state, reason = ended
                    session.merge(
                        Outcome(
                            source_id=row.source.id,
                            recipe_id=self._recipe.id,
                            state=state,
                            reason=reason,
                            candidate_id=first.get(row.source.id),
                            finished_at=utcnow(),
                        )
                    )

    def _outcome(self, row: TrainingCandidate, candidate_id: int | None) -> tuple[State, str] | None:
        """How a photo ended; None for one that was not drawn because others filled the rate."""
        smallest = self._options.min_object_area
        if candidate_id is not None:
            return State.CANDIDATE, ""
        if row.candidate.area < smallest:
            return State.MASK_TOO_SMALL, f"The object covers {row.candidate.area:.2%}, less than {smallest:.2%}."
        if row.source.id in self._ended:
            return State.FAILED, self._ended[row.source.id]
        return None

    def result(self) -> IdAugResult:
        mine = Candidate.recipe_id == self._recipe.id
        by_pass = select(Candidate.variant, func.count()).where(mine).group_by(Candidate.variant)
        failed = select(func.count()).where(Outcome.recipe_id == self._recipe.id, Outcome.state == State.FAILED)
        with self._workspace.read() as session:
            made = dict(session.execute(by_pass).all())
            failures = session.scalar(failed) or 0
        return IdAugResult(
            self._recipe.hash,
            self._made_now,
            images=len(self._images),
            too_small=len(self._images) - len(self._large),
            failed=failures,
            passes=tuple(
                PassResult(p.option, p.repeat, self._target(p), made.get(p.variant, 0), self._tries[p.variant])
                for p in self._options.passes()
            ),
        )
