"""What an evaluation is asked for: which prompts, detectors and sets. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ospcoop.options import Storage, canonical_hash
from ospcoop.runs import EncoderChoice

DETECTOR_LABELS: dict[str, str] = {
    "mcm": "MCM",
    "gl-mcm": "GL-MCM",
    "neglabel": "NegLabel",
    "csp": "CSP",
    "negrefine": "NegRefine",
}
NEED_LABELS = frozenset({"neglabel", "csp", "negrefine"})
DEFAULT_DETECTORS = ("mcm", "gl-mcm")
VAL = "val"
RESAMPLES = 1000


class EvaluationError(RuntimeError):
    """An evaluation cannot be made as asked; the message says what to change."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Which prompts, detectors and sets; zero-shot prompts are always evaluated beside the runs.

    ``encoder`` is used where no run is named; otherwise each run's own. No ``ood_sets`` means every registered one and
    the newest build of each name. ``temperature`` and ``local_weight`` are MCM's and GL-MCM's. ``labels`` is a folder
    of WordNet files, or a file with a negative label a line, for the detectors in :data:`NEED_LABELS`. ``seed`` is
    the bootstrap's.
    """

    runs: tuple[str, ...] = ()
    encoder: EncoderChoice = field(default_factory=lambda: EncoderChoice("embedded_dual"))
    detectors: tuple[str, ...] = DEFAULT_DETECTORS
    id_set: str = VAL
    ood_sets: tuple[str, ...] = ()
    temperature: float = 1.0
    local_weight: float = 0.5
    labels: str | None = None
    seed: int = 0
    resamples: int = RESAMPLES
    feature_storage: Storage = "float32"

    def __post_init__(self) -> None:
        if not self.detectors:
            raise EvaluationError("Choose at least one detector.")
        for name in self.detectors:
            if name not in DETECTOR_LABELS:
                raise EvaluationError(f"There is no detector called {name!r}. Choose of {', '.join(DETECTOR_LABELS)}.")
            if name in NEED_LABELS and self.labels is None:
                raise EvaluationError(
                    f"{DETECTOR_LABELS[name]} needs negative labels: give --labels, a folder of WordNet files "
                    "(noun.animal.txt, adj.all.txt, ...) or a file with one label a line."
                )
        if self.labels is not None and not Path(self.labels).exists():
            raise EvaluationError(f"--labels: there is no {self.labels}.")
        if self.temperature <= 0 or self.local_weight < 0:
            raise EvaluationError("The temperature must be above 0 and the local weight 0 or more.")
        if self.resamples < 1 or self.seed < 0:
            raise EvaluationError("The bootstrap needs at least one resample, and a seed of 0 or more.")

    @classmethod
    def from_dict(cls, values: dict) -> EvaluationRequest:
        """From a job's JSON. Raises :class:`EvaluationError` for a name that is unknown."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise EvaluationError(f"Unknown option of an evaluation: {', '.join(sorted(unknown))}.")
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        if isinstance(given.get("encoder"), dict):
            given["encoder"] = EncoderChoice(**given["encoder"])
        return cls(**given)

    def as_dict(self) -> dict:
        """As JSON, for a job."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def detector_options(self, name: str) -> dict:
        """What decides the detector's scores besides prompts and labels."""
        options = {"temperature": self.temperature} if name in ("mcm", "gl-mcm") else {}
        return {**options, "local_weight": self.local_weight} if name == "gl-mcm" else options

    def detector_label(self, name: str) -> str:
        """The detector as tables name it: with the options that are not the published ones."""
        usual = EvaluationRequest(labels=None).detector_options(name)
        short = {"temperature": "T", "local_weight": "w"}
        changed = [f"{short[o]}={v:g}" for o, v in self.detector_options(name).items() if v != usual[o]]
        return " ".join([DETECTOR_LABELS[name], *changed])


def key_of(facts: dict) -> str:
    """What an evaluation is found again by: sha256 over all that decides its numbers."""
    return canonical_hash(facts)
