"""Numbers measured once from the files of a candidate's folder and kept in the workspace's cache.

A folder's name is a hash of what its pixels came from, so a known folder need never be read again. Losing the file
costs the time to measure again; a damaged one is measured anew.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from db.files import atomic_write
from db.progress import Progress

SAVE_EVERY = 5_000
UPDATE_EVERY = 100


def measured_folders(
    path: Path,
    folders: Sequence[tuple[int, str]],
    measure: Callable[[str], Sequence | None],
    missing: np.ndarray,
    progress: Progress,
    message: str,
) -> np.ndarray:
    """``[n, len(missing)]`` of the dtype of ``missing``, a row for each (id, folder), from the cache file at ``path``.

    What the cache lacks, ``measure(folder)`` gives; where that is None the row is ``missing``, and it is tried again
    the next time. The cache is written now and then, so that a cancelled or killed run has not worked for nothing.
    """
    known = _load(path, missing)
    rows = np.tile(missing, (len(folders), 1))
    fresh = 0
    try:
        for place, (owner, folder) in enumerate(folders):
            key = (owner, int.from_bytes(hashlib.sha256(folder.encode()).digest()[:8], "big"))
            if key not in known:
                measured = measure(folder)
                if measured is not None:
                    known[key] = tuple(measured)
                    fresh += 1
                    if fresh % SAVE_EVERY == 0:
                        _save(path, known, missing)
            if key in known:
                rows[place] = known[key]
            if place % UPDATE_EVERY == 0:
                progress.update(place, len(folders), message)
    finally:
        if fresh % SAVE_EVERY:
            _save(path, known, missing)
    return rows


def _load(path: Path, missing: np.ndarray) -> dict[tuple[int, int], tuple]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            keys, values = stored["keys"], stored["values"]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return {}
    if values.dtype != missing.dtype or values.shape != (len(keys), len(missing)):
        return {}
    return dict(zip(map(tuple, keys.tolist()), map(tuple, values.tolist()), strict=True))


def _save(path: Path, known: dict[tuple[int, int], tuple], missing: np.ndarray) -> None:
    buffer = io.BytesIO()
    keys = np.array(list(known), np.uint64).reshape(-1, 2)
    np.savez(buffer, keys=keys, values=np.array(list(known.values()), missing.dtype).reshape(-1, len(missing)))
    atomic_write(path, buffer.getvalue())
