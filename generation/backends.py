"""The three loaded backends of a recipe, and the fingerprints that go into its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generation.protocols import Inpainter, Masker, Scorer
from generation.recipe import RecipeOptions, canonical_hash, recipe_config
from generation.registry import REGISTRIES, find_backend


@dataclass(frozen=True)
class Backends:
    """Models in memory, loaded once and used for every image of a run."""

    masker: Masker
    inpainter: Inpainter
    scorer: Scorer

    def fingerprints(self) -> dict[str, dict]:
        stages = {"masker": self.masker, "inpainter": self.inpainter, "scorer": self.scorer}
        return {stage: dict(backend.fingerprint()) for stage, backend in stages.items()}

    def recipe(self, options: RecipeOptions) -> tuple[str, dict]:
        """The recipe's hash and config for these backends under ``options``."""
        config = recipe_config(options, self.fingerprints())
        return canonical_hash(config), config


def load_backends(options: RecipeOptions, cache_dir: Path | None = None) -> Backends:
    """Load what ``options`` names. Takes seconds; keep the result for the next run.

    ``cache_dir`` is where backends may keep what is slow to compute, such as the classes' text features.
    """
    entries = {stage: find_backend(stage, getattr(options, stage)) for stage in REGISTRIES}
    return Backends(
        **{
            stage: entry.load(**({"cache_dir": cache_dir} if entry.keeps_cache and cache_dir else {}))
            for stage, entry in entries.items()
        }
    )


class BackendCache:
    """The backends used last, kept while the names stay the same."""

    def __init__(self) -> None:
        self._names: tuple[str, str, str] | None = None
        self._backends: Backends | None = None

    def get(self, options: RecipeOptions, cache_dir: Path | None = None) -> Backends:
        names = (options.masker, options.inpainter, options.scorer)
        if self._backends is None or names != self._names:
            self._backends = None
            self._backends, self._names = load_backends(options, cache_dir), names
        return self._backends
