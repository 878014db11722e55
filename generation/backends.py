"""The three backends of a recipe, in memory together or in turn, and the fingerprints that go into its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from generation.gpu import free_memory
from generation.protocols import Backend, Inpainter, Masker, ResidualDetector, Scorer, SecondLook
from generation.recipe import RecipeOptions, canonical_hash, recipe_config
from generation.registry import REGISTRIES, BackendEntry, find_backend
from generation.tuning import BatchKnob, Tunable

# What a pass of a run may need; "detector" is the part of a masker that looks for the object on a candidate.
Part = Literal["masker", "inpainter", "scorer", "detector"]


class BackendNotLoaded(RuntimeError):
    """A step asked for a backend that this pass of a low-memory run does not hold."""


class BackendChanged(RuntimeError):
    """A backend that was loaded again is not the one that the recipe was made with."""


@dataclass(frozen=True)
class Backends:
    """Models in memory, loaded once and used for every image of a run."""

    masker: Masker
    inpainter: Inpainter
    scorer: Scorer

    @property
    def looks_again(self) -> bool:
        """Whether the masker is a :class:`~generation.protocols.SecondLook`."""
        return isinstance(self.masker, SecondLook)

    @property
    def detects_residuals(self) -> bool:
        """Whether the masker is a :class:`~generation.protocols.ResidualDetector`."""
        return isinstance(self.masker, ResidualDetector)

    @property
    def residual_detector(self) -> ResidualDetector | None:
        return self.masker if isinstance(self.masker, ResidualDetector) else None

    def hold(self, *parts: Part) -> None:
        """Have these in memory: all of them are, all the time."""

    def fingerprints(self) -> dict[str, dict]:
        stages = {"masker": self.masker, "inpainter": self.inpainter, "scorer": self.scorer}
        return {stage: dict(backend.fingerprint()) for stage, backend in stages.items()}

    def recipe(self, options: RecipeOptions) -> tuple[str, dict]:
        """The recipe's hash and config for these backends under ``options``."""
        return _recipe(options, self.fingerprints())

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The batch sizes to tune, for images of ``image_size`` (height, width)."""
        return _batch_knobs((self.masker, self.inpainter, self.scorer), image_size)


class BackendsInTurn:
    """The same backends with only those in memory that :meth:`hold` was last given.

    Each is loaded once in the beginning, for its fingerprint and for what it can do, and freed before the next;
    the masker comes last and stays, since a run begins with it. Asking for one that is not held raises
    :class:`BackendNotLoaded`; :meth:`hold` raises :class:`BackendChanged` when a weights file was replaced
    meanwhile. The parameters are those of :func:`load_backends`.
    """

    def __init__(self, options: RecipeOptions, cache_dir: Path | None = None, *, compiled: bool = False) -> None:
        self._entries = {stage: find_backend(stage, getattr(options, stage)) for stage in REGISTRIES}
        self._cache_dir = cache_dir
        self._compiled = compiled
        self._held: dict[Part, Backend] = {}
        self._fingerprints: dict[str, dict] = {}
        for stage in ("scorer", "inpainter", "masker"):
            self._free()
            self._held[stage] = self._load(stage)
            self._fingerprints[stage] = dict(self._held[stage].fingerprint())
        self.looks_again = isinstance(self._held["masker"], SecondLook)
        self.detects_residuals = isinstance(self._held["masker"], ResidualDetector)

    @property
    def masker(self) -> Masker:
        return self._get("masker")

    @property
    def inpainter(self) -> Inpainter:
        return self._get("inpainter")

    @property
    def scorer(self) -> Scorer:
        return self._get("scorer")

    @property
    def residual_detector(self) -> ResidualDetector | None:
        return self._get("detector") if self.detects_residuals else None

    def hold(self, *parts: Part) -> None:
        """Free every other backend, then load those of ``parts`` that are not in memory."""
        self._free(*parts)
        for part in parts:
            if part not in self._held:
                self._held[part] = self._load(part)

    def fingerprints(self) -> dict[str, dict]:
        return {stage: dict(self._fingerprints[stage]) for stage in REGISTRIES}

    def recipe(self, options: RecipeOptions) -> tuple[str, dict]:
        """The recipe's hash and config for these backends under ``options``."""
        return _recipe(options, self.fingerprints())

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The batch sizes of the backends held, for images of ``image_size`` (height, width)."""
        return _batch_knobs(self._held.values(), image_size)

    def _get(self, part: Part) -> Backend:
        try:
            return self._held[part]
        except KeyError:
            raise BackendNotLoaded(
                f"The {part} is not in memory in this pass: what the pass before left on disk is gone or damaged. "
                "Run again with --redo-failed."
            ) from None

    def _free(self, *but: Part) -> None:
        freed = [part for part in self._held if part not in but]
        for part in freed:
            del self._held[part]
        if freed:
            free_memory()

    def _load(self, part: Part) -> Backend:
        stage = "masker" if part == "detector" else part
        entry = self._entries[stage]
        alone = {"detector_only": True} if part == "detector" and entry.detects_alone else {}
        backend = _load(entry, self._cache_dir, self._compiled, **alone)
        known = self._fingerprints.get(stage)
        if known is not None and not _agree(backend.fingerprint(), known):
            raise BackendChanged(
                f"The {stage} {entry.label!r} is another than when the run began; was a weights file replaced? "
                "Run again: it makes a recipe of its own."
            )
        return backend


def load_backends(options: RecipeOptions, cache_dir: Path | None = None, *, compiled: bool = False) -> Backends:
    """Load what ``options`` names. Takes seconds; keep the result for the next run.

    ``cache_dir`` is where backends may keep what is slow to compute, such as the classes' text features.
    ``compiled`` sends the models that can through torch.compile.
    """
    entries = {stage: find_backend(stage, getattr(options, stage)) for stage in REGISTRIES}
    return Backends(**{stage: _load(entry, cache_dir, compiled) for stage, entry in entries.items()})


class BackendCache:
    """The backends used last, kept while the names stay the same."""

    def __init__(self) -> None:
        self._key: tuple[str, str, str, bool] | None = None
        self._backends: Backends | None = None

    def get(self, options: RecipeOptions, cache_dir: Path | None = None, *, compiled: bool = False) -> Backends:
        key = (options.masker, options.inpainter, options.scorer, compiled)
        if self._backends is None or key != self._key:
            self.clear()
            self._backends, self._key = load_backends(options, cache_dir, compiled=compiled), key
        return self._backends

    def clear(self) -> None:
        """Forget them, and give their memory back."""
        self._backends = None
        free_memory()


def _load(entry: BackendEntry, cache_dir: Path | None, compiled: bool, **parameters: object) -> Backend:
    if entry.keeps_cache and cache_dir:
        parameters["cache_dir"] = cache_dir
    if entry.compiles:
        parameters["compiled"] = compiled
    return entry.load(**parameters)


def _recipe(options: RecipeOptions, fingerprints: dict[str, dict]) -> tuple[str, dict]:
    config = recipe_config(options, fingerprints)
    return canonical_hash(config), config


def _batch_knobs(backends, image_size: tuple[int, int]) -> list[BatchKnob]:
    return [knob for one in backends if isinstance(one, Tunable) for knob in one.batch_knobs(image_size)]


def _agree(found: Mapping[str, object], known: Mapping[str, object]) -> bool:
    """Whether all that ``found`` says is what was known; a detector alone says less than its masker."""
    return all(known.get(name) == value for name, value in found.items())
