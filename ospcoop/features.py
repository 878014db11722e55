"""Image features of a frozen tower, computed once and kept in the workspace.

They lie in ``cache/features/<encoder key>/`` (see :mod:`ospcoop.feature_shards`), which may be deleted. The encoder
key hashes the weights, what the preprocessing does and the number format; an image's key is its file's sha256 and
what was done to it before. Shards appear whole, so a kill costs the shard in hand.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.backends import cudnn

from db.files import atomic_write
from db.progress import NoProgress, Progress
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.detectors.base import ImageFeatures
from ospcoop.feature_shards import ENCODER_FILE, FeatureSet, ShardIndex
from ospcoop.images import ImageRef

FEATURES = "cache/features"
FORMAT = 1
BATCH = 32
SHARD_BYTES = 256 * 2**20
SHARD_ROWS = 2048
READERS = 4
FLIPPED = "~flip"

Storage = Literal["float32", "float16"]


class CacheFull(RuntimeError):
    """The disk has no room for the features asked for; the message says how much they take."""


class FeatureCache:
    """The features of one encoder in a workspace. Several processes may fill it at once.

    ``root`` is the workspace's folder. ``storage`` "float32" keeps the very numbers that the tower gave;
    "float16" halves the disk (a ViT-B/16 image takes 0.40 MB, of which 2 kB are global) and rounds them.
    """

    def __init__(
        self,
        root: Path,
        encoder: VisionLanguageModel,
        *,
        storage: Storage = "float32",
        batch_size: int = BATCH,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        if storage not in ("float32", "float16"):
            raise ValueError(f"Features are stored as float32 or float16, not {storage!r}.")
        self._encoder = encoder
        self._storage = np.dtype(storage)
        self._batch_size, self._shard_bytes = batch_size, shard_bytes
        self._facts = {"format": FORMAT, "storage": storage, **encoder_facts(encoder)}
        text = json.dumps(self._facts, sort_keys=True, separators=(",", ":"))
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = Path(root) / FEATURES / self.key
        self._index = ShardIndex(self.folder)

    def row_bytes(self, *, local: bool) -> int:
        """Bytes on disk that one image takes, or one mirrored image."""
        rows, columns = self._encoder.local_grid
        return self._storage.itemsize * self._encoder.feature_dim * (1 + rows * columns * local)

    def stored_bytes(self) -> int:
        """Bytes of all shards of this encoder."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def ensure(
        self,
        images: Iterable[ImageRef],
        *,
        flips: bool = False,
        local: bool = True,
        progress: Progress | None = None,
    ) -> FeatureSet:
        """The images' features, computing what is missing. ``flips`` adds those of the images mirrored left to right.

        An image that comes twice is computed once. Raises :class:`CacheFull`, whatever an ``open`` raises, and
        :class:`db.progress.Cancelled`; what was written by then is kept, and the same call goes on from there.
        """
        progress = progress or NoProgress()
        wanted = list(images)
        self._index.refresh()
        part = "local" if local else "whole"
        missing: dict[str, tuple[ImageRef, list[bool]]] = {}
        for ref in wanted:
            turns = [flip for flip in (False, True)[: 1 + flips] if not self._index.has(_key(ref, flip), part)]
            if turns:
                missing[ref.key] = (ref, turns)
        self._compute(list(missing.values()), local, progress)
        flipped = self._set([_key(ref, True) for ref in wanted], local) if flips else None
        return self._set([_key(ref, False) for ref in wanted], local, flipped)

    def _compute(self, missing: list[tuple[ImageRef, list[bool]]], local: bool, progress: Progress) -> None:
        if not missing:
            return
        row_bytes = self.row_bytes(local=local)
        self._check_room(row_bytes * sum(len(turns) for _, turns in missing))
        per_shard = max(1, min(SHARD_ROWS, self._shard_bytes // row_bytes) // 2)
        with ThreadPoolExecutor(READERS, "feature-reader") as readers:
            for start in range(0, len(missing), per_shard):
                part = missing[start : start + per_shard]
                keys = [_key(ref, flip) for ref, turns in part for flip in turns]
                arrays: list[ImageFeatures] = []
                for at in range(0, len(part), self._batch_size):
                    progress.update(start + at, len(missing), "Computing image features")
                    arrays.append(self._encode(readers, part[at : at + self._batch_size]))
                self._write(keys, arrays, local)
        progress.update(len(missing), len(missing), "Computing image features")

    def _encode(self, readers: ThreadPoolExecutor, part: Sequence[tuple[ImageRef, list[bool]]]) -> ImageFeatures:
        def prepare(item: tuple[ImageRef, list[bool]]) -> list[torch.Tensor]:
            ref, turns = item
            image = ref.open()
            mirrored = np.ascontiguousarray(image[:, ::-1])
            return [self._encoder.preprocess(mirrored if flip else image) for flip in turns]

        pixels = torch.stack([one for prepared in readers.map(prepare, part) for one in prepared])
        with exact_float32():
            whole, patches = self._encoder.encode_image(pixels)
        return ImageFeatures(whole.cpu(), patches.cpu())

    def _write(self, keys: list[str], parts: list[ImageFeatures], local: bool) -> None:
        arrays = {"whole": torch.cat([part.whole for part in parts])}
        if local:
            arrays["local"] = torch.cat([part.local for part in parts])
        atomic_write(self.folder / ENCODER_FILE, json.dumps(self._facts, indent=1, sort_keys=True).encode())
        self._index.write(keys, {part: one.numpy().astype(self._storage, copy=False) for part, one in arrays.items()})

    def _set(self, keys: list[str], local: bool, flipped: FeatureSet | None = None) -> FeatureSet:
        rows, columns = self._encoder.local_grid
        dim = self._encoder.feature_dim
        whole = self._index.rows(keys, "whole", (dim,), local=local)
        patches = self._index.rows(keys, "local", (rows * columns, dim), local=local) if local else None
        return FeatureSet(whole, patches, flipped)

    def _check_room(self, needed: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise CacheFull(
                f"The image features take {needed / 1e9:.1f} GB in {self.folder}, where {free / 1e9:.1f} GB are free. "
                "Make room, or store them as float16, which halves them."
            )


def _key(ref: ImageRef, flip: bool) -> str:
    return ref.key + FLIPPED if flip else ref.key


def exact_float32() -> AbstractContextManager:
    """On a GPU: convolutions with all bits of float32, and the same ones every time."""
    return cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def encoder_facts(encoder: VisionLanguageModel) -> dict:
    """What decides an encoder's image features, as JSON; its preprocessing by what it does to one fixed image."""
    fixed = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    return {
        "name": encoder.name,
        "grade": encoder.grade,
        "weights_sha256": dict(encoder.weights_sha256),
        "image_size": encoder.image_size,
        "feature_dim": encoder.feature_dim,
        "local_grid": list(encoder.local_grid),
        "preprocess_sha256": hashlib.sha256(encoder.preprocess(fixed).contiguous().numpy().tobytes()).hexdigest(),
    }
