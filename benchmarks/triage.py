"""How many decisions triage saves: replays a labelled set in the tool's order and at random.

`uv run benchmarks/triage.py [--seeds N] [--workspace DIR]`. Full review judges every candidate once; what it accepts
is the accept set, with its share of good images, the purity. A replay judges candidates in an order, retraining as
often as the tool does. Every verdict that surprises the model gets a second look, which counts as a decision. It stops
by a rule that sees no truth: when the bands proposed leave at most half a percent of the accepts that the model
expects undone. Then the bands are confirmed and the rest is left undecided.

Goal: 99 % of the accept set, at a purity no more than 0.1 % below full review's, with at most 40 % of the decisions
that random order without triage takes for it (which is 99 % of all). benchmarks/synthetic_review.py says how the
set is made; --workspace replays the verdicts of a workspace instead, whose truth is what people said.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.report import machine, print_figures, print_table
from benchmarks.synthetic_review import LabelledSet, make_labelled_set
from db.models import Verdict
from review.triage.bands import Band, find_band, is_inside
from review.triage.features import FeatureTable
from review.triage.model import fit
from review.triage.order import is_surprising, review_priority
from review.triage.quality import quality
from review.triage.training import due_after

SHARE_OF_ACCEPT_SET = 0.99
PURITY_TOLERANCE = 0.001
MAX_ERROR = 0.02
MAX_REJECT_ERROR = 0.05
MAX_LOSS = 0.005
FIRST = 300
WEAKER_SIGNALS = (0.8, 0.6)


@dataclass(frozen=True)
class Outcome:
    """What a replay came to; shares are 0 to 1. ``decisions`` counts second looks too.

    ``decisions_share`` is decisions over those of random order without triage. ``accept_set`` is the share of full
    review's accept set that was obtained. ``band_errors`` are the true shares of errors in what the bands decided, to
    accept and to reject. ``auroc`` is the last model's, against the truth of what nobody judged.
    """

    decisions: int
    decisions_share: float
    second_looks: int
    accept_set: float
    purity: float
    full_purity: float
    automatic: int
    band_errors: tuple[float, float]
    auroc: float

    @property
    def is_good_enough(self) -> bool:
        return self.accept_set >= SHARE_OF_ACCEPT_SET and self.purity >= self.full_purity - PURITY_TOLERANCE


class Replay:
    """One annotator, one set, one order. A verdict is looked up only when its candidate is judged."""

    def __init__(self, labelled: LabelledSet, seed: int, *, at_random: bool) -> None:
        self._set = labelled
        self._seed = seed
        self._at_random = at_random
        self._draw = np.random.default_rng([seed, 10])
        self._verdicts = np.full(len(labelled.truth), -1, np.int8)
        self._looks = np.zeros(len(labelled.truth), int)

    def run(self) -> Outcome:
        count = len(self._verdicts)
        self._judge(self._draw.permutation(count)[:FIRST])
        while True:
            fitted = fit(self._set.table, self._verdicts, seed=self._seed, diagnostics=False)
            self._look_again(fitted.p_accept)
            is_open = self._verdicts < 0
            accept = find_band(Verdict.ACCEPT, fitted.p_accept, self._verdicts, is_open, MAX_ERROR)
            reject = find_band(Verdict.REJECT, fitted.p_accept, self._verdicts, is_open, MAX_REJECT_ERROR)
            accepted = is_open & _inside(accept, fitted.p_accept)
            rejected = is_open & _inside(reject, fitted.p_accept)
            if self._expected_loss(fitted.p_accept, is_open, accepted) <= MAX_LOSS:
                return self._outcome(fitted.p_accept, accepted, rejected)
            waiting = np.flatnonzero(is_open)
            if self._at_random:
                order = self._draw.permutation(waiting)
            else:
                priority = review_priority(fitted.p_accept, is_open, self._seed)
                order = waiting[np.argsort(-priority[waiting], kind="stable")]
            self._judge(order[: due_after(count - len(waiting))])

    def _judge(self, rows: np.ndarray) -> None:
        self._verdicts[rows] = self._set.verdicts[rows]
        self._looks[rows] += 1

    def _look_again(self, p_accept: np.ndarray) -> None:
        """One second look at each verdict that surprises the model: the truth, but for slips as frequent as ever."""
        rows = np.flatnonzero(is_surprising(self._verdicts, p_accept) & (self._looks == 1))
        slipped = self._draw.random(len(rows)) < self._set.slips
        self._verdicts[rows] = np.where(slipped, 1 - self._set.truth[rows], self._set.truth[rows])
        self._looks[rows] += 1

    def _expected_loss(self, p_accept: np.ndarray, is_open: np.ndarray, accepted: np.ndarray) -> float:
        """The share of all accepts that the model expects among what neither a person nor the band accepts."""
        total = (self._verdicts == 1).sum() + p_accept[is_open].sum()
        return float(p_accept[is_open & ~accepted].sum() / total)

    def _outcome(self, p_accept: np.ndarray, accepted: np.ndarray, rejected: np.ndarray) -> Outcome:
        truth, full = self._set.truth, self._set.verdicts == 1
        obtained = (self._verdicts == 1) | accepted
        is_open = self._verdicts < 0
        decisions = int(self._looks.sum())
        return Outcome(
            decisions=decisions,
            decisions_share=decisions / (SHARE_OF_ACCEPT_SET * len(truth)),
            second_looks=int((self._looks > 1).sum()),
            accept_set=float((obtained & full).sum() / full.sum()),
            purity=float(truth[obtained].mean()),
            full_purity=float(truth[full].mean()),
            automatic=int((accepted | rejected).sum()),
            band_errors=(_share(truth[accepted] == 0), _share(truth[rejected] == 1)),
            auroc=quality(truth[is_open], p_accept[is_open])["auroc"] if len(set(truth[is_open])) == 2 else 1.0,
        )


def _inside(band: Band | None, p_accept: np.ndarray) -> np.ndarray:
    return np.zeros(len(p_accept), bool) if band is None else is_inside(band.verdict, p_accept, band.threshold)


def _share(errors: np.ndarray) -> float:
    return float(errors.mean()) if len(errors) else 0.0


def workspace_set(folder: Path) -> LabelledSet:
    """The judged candidates of a workspace's active recipe, their verdicts taken for the truth."""
    from db.progress import NoProgress
    from db.queries import active_recipe
    from db.workspace import open_workspace
    from review.triage.features import feature_table
    from review.triage.labels import Cutoff, labels_at

    workspace = open_workspace(folder, create=False)
    with workspace.read() as session:
        recipe = active_recipe(session)
        if recipe is None:
            raise SystemExit(f"{folder} has no candidates; generate and review some first.")
        labels = labels_at(session, recipe.id, Cutoff.now(session))
    table = feature_table(workspace, recipe.id, NoProgress())
    workspace.close()
    rows = np.array([key in labels for key in table.candidate_ids.tolist()], bool)
    if rows.sum() <= FIRST:
        raise SystemExit(f"{rows.sum()} judged candidates are too few to replay; it takes more than {FIRST}.")
    judged = FeatureTable(
        table.candidate_ids[rows], table.names, table.values[rows], table.class_indices[rows], table.hashes[rows]
    )
    verdicts = np.array([labels[key] for key in judged.candidate_ids.tolist()], np.int8)
    return LabelledSet(judged, verdicts, verdicts, 0.0)


HEADERS = (
    "set, order, seed",
    "decisions",
    "of random",
    "again",
    "accept set",
    "purity",
    "full",
    "auto",
    "wrong",
    "AUROC",
)


def _row(name: str, outcome: Outcome) -> tuple:
    return (
        name,
        outcome.decisions,
        f"{outcome.decisions_share:.1%}",
        outcome.second_looks,
        f"{outcome.accept_set:.2%}",
        f"{outcome.purity:.2%}",
        f"{outcome.full_purity:.2%}",
        outcome.automatic,
        " / ".join(f"{share:.2%}" for share in outcome.band_errors),
        f"{outcome.auroc:.3f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many sets, and replays of each")
    parser.add_argument("--candidates", type=int, default=10_000, help="size of a made-up set")
    parser.add_argument("--workspace", type=Path, help="replay this workspace's verdicts instead")
    arguments = parser.parse_args()
    print(machine())
    print(f"bands: error at most {MAX_ERROR:.0%} to accept, {MAX_REJECT_ERROR:.0%} to reject (95 % bounds)\n")
    start = time.perf_counter()
    rows, goal = [], []

    def replay(name: str, labelled: LabelledSet, seed: int, *, at_random: bool = False) -> Outcome:
        outcome = Replay(labelled, seed, at_random=at_random).run()
        rows.append(_row(f"{name}, {'random' if at_random else 'tool'}, {seed}", outcome))
        return outcome

    if arguments.workspace:
        labelled = workspace_set(arguments.workspace)
        goal = [replay("workspace", labelled, seed) for seed in range(arguments.seeds)]
        replay("workspace", labelled, 0, at_random=True)
    else:
        for seed in range(arguments.seeds):
            goal.append(replay("signal 1", make_labelled_set(arguments.candidates, seed=seed), seed))
        replay("signal 1", make_labelled_set(arguments.candidates), 0, at_random=True)
        for signal in WEAKER_SIGNALS:
            replay(f"signal {signal:g}", make_labelled_set(arguments.candidates, signal=signal), 0)
    print_table(HEADERS, rows)
    print(f"\n{time.perf_counter() - start:.0f} s. Of random: decisions over those of random order without triage.")
    print("Again: second looks. Auto: decided by the bands; wrong: their true errors to accept / to reject.")
    print("AUROC: of what nobody judged, against the truth.")
    reached = sum(outcome.is_good_enough for outcome in goal)
    print(f"99 % of the accept set at full review's purity (less at most 0.1 %): {reached} of {len(goal)} seeds.")
    print_figures(
        {
            "decisions_share": float(np.mean([outcome.decisions_share for outcome in goal])),
            "decisions_share_worst": max(outcome.decisions_share for outcome in goal),
            "accept_set_share": float(np.mean([outcome.accept_set for outcome in goal])),
            "purity": float(np.mean([outcome.purity for outcome in goal])),
            "full_review_purity": float(np.mean([outcome.full_purity for outcome in goal])),
        }
    )


if __name__ == "__main__":
    main()
