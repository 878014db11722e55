"""Where cached features lie and how they are read: shards on disk, an index over them, arrays that read lazily.

A shard is ``<name>.whole.npy [n, D]``, ``<name>.local.npy [n, P, D]`` (where local features were asked for) and,
written last, ``<name>.json`` with the rows' keys. Without its JSON a shard does not exist.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from db.files import atomic_file, atomic_write
from ospcoop.detectors.base import ImageFeatures

ENCODER_FILE = "encoder.json"

Part = Literal["whole", "local"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Rows written together: their keys and the arrays' files; the arrays are opened when first read."""

    folder: Path
    name: str
    keys: tuple[str, ...]
    has_local: bool

    @cached_property
    def whole(self) -> np.ndarray:
        return np.load(self.folder / f"{self.name}.whole.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def local(self) -> np.ndarray:
        return np.load(self.folder / f"{self.name}.local.npy", mmap_mode="r", allow_pickle=False)


class Rows:
    """Rows that lie in shards, as one array ``[N, ...]`` float32 that is read where it is indexed.

    Indexed by a slice or integer array; neighbouring float32 rows of one shard come as a view of the file.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, part: Part, shards: Sequence[Shard], where: np.ndarray, row: tuple) -> None:
        self._part, self._shards, self._where = part, shards, where
        self.shape = (len(where), *row)

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> np.ndarray:
        where = self._where[index if isinstance(index, slice) else np.asarray(index, dtype=np.int64)]
        shards, rows = where[:, 0], where[:, 1]
        if len(where) and (shards == shards[0]).all() and (np.diff(rows) == 1).all():
            found = getattr(self._shards[shards[0]], self._part)[rows[0] : rows[-1] + 1]
            return found.astype(np.float32, copy=False)
        found = np.empty((len(where), *self.shape[1:]), np.float32)
        for shard in np.unique(shards):
            mine = shards == shard
            found[mine] = getattr(self._shards[shard], self._part)[rows[mine]]
        return found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype or self.dtype)


@dataclass(frozen=True)
class FeatureSet:
    """Features of ``N`` images in the order they were asked for: ``whole [N, D]``, ``local [N, P, D]`` or None.

    ``flipped`` holds those of the mirrored images, where asked for. Nothing is in memory until it is indexed.
    """

    whole: Rows
    local: Rows | None
    flipped: FeatureSet | None = None

    def __len__(self) -> int:
        return len(self.whole)

    def take(self, index: slice | Sequence[int] | np.ndarray) -> ImageFeatures:
        """The chosen images' features as float32 tensors on the CPU."""
        parts = (None if rows is None else torch.tensor(rows[index]) for rows in (self.whole, self.local))
        return ImageFeatures(*parts)

    def batches(self, size: int = 256) -> Iterator[ImageFeatures]:
        """All images in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))


class ShardIndex:
    """Every whole shard of a folder, and where each key lies in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[Shard] = []
        self._places: dict[Part, dict[str, tuple[int, int]]] = {"whole": {}, "local": {}}

    def has(self, key: str, part: Part) -> bool:
        return key in self._places[part]

    def refresh(self) -> None:
        """Take in the shards that are new on disk; a damaged one is passed over, and so made anew."""
        known = {shard.name for shard in self.shards}
        for path in sorted(self.folder.glob("*.json")):
            if path.stem in known or path.name == ENCODER_FILE:
                continue
            shard = _read_shard(path)
            if shard is not None:
                self._add(shard)

    def write(self, keys: Sequence[str], arrays: Mapping[Part, np.ndarray]) -> None:
        """A new shard of these rows, named by their keys."""
        name = hashlib.sha256("\n".join([*sorted(arrays), *keys]).encode()).hexdigest()[:20]
        sizes = {}
        for part, array in arrays.items():
            path = self.folder / f"{name}.{part}.npy"
            with atomic_file(path) as handle:
                np.save(handle, array, allow_pickle=False)
            sizes[part] = path.stat().st_size
        atomic_write(self.folder / f"{name}.json", json.dumps({"sizes": sizes, "keys": list(keys)}).encode())
        self._add(Shard(self.folder, name, tuple(keys), "local" in arrays))

    def rows(self, keys: Sequence[str], part: Part, row: tuple[int, ...], *, local: bool) -> Rows:
        """The rows of ``keys``, each of shape ``row``; ``local``: from shards that hold local features too."""
        places = self._places["local" if local else "whole"]
        where = np.array([places[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        return Rows(part, tuple(self.shards), where, row)

    def _add(self, shard: Shard) -> None:
        number = len(self.shards)
        self.shards.append(shard)
        for row, key in enumerate(shard.keys):
            self._places["whole"].setdefault(key, (number, row))
            if shard.has_local:
                self._places["local"].setdefault(key, (number, row))


def _read_shard(path: Path) -> Shard | None:
    """The shard that a JSON describes, or None, with a warning, when any of its files is not as described."""
    try:
        described = json.loads(path.read_bytes())
        shard = Shard(path.parent, path.stem, tuple(described["keys"]), "local" in described["sizes"])
        for part, size in described["sizes"].items():
            if (path.parent / f"{path.stem}.{part}.npy").stat().st_size != size:
                raise ValueError(f"{part} is not the {size} bytes it should be")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("The feature shard %s is damaged and is made anew: %s", path, error)
        return None
    return shard
