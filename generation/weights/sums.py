"""Sums of weights files: computed once and remembered, and the first-use ones kept for good.

Two small files in the weights folder. ``.verified.json`` remembers the sha256 of files by path, size and
modification time, so that gigabytes are not read at every start; it may be deleted. ``weights.lock.json`` holds
the sums of files whose publisher gives none: the first that came is trusted, and compared from then on.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db.files import atomic_write, sha256_file

REMEMBERED = ".verified.json"
LOCK = "weights.lock.json"
LARGE_BYTES = 200 * 1024**2

log = logging.getLogger(__name__)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for, and hold, the lock on ``path`` against other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict:
    """An unreadable or foreign file counts as empty: at worst sums are computed again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, PermissionError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _key(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def remembered_sha256(folder: Path, path: Path) -> str | None:
    """The sum of ``path`` if it was computed since the file last changed. Reads nothing of the file itself."""
    place, size, modified = _key(path)
    entry = _read(folder / REMEMBERED).get(place)
    return entry[2] if isinstance(entry, list) and entry[:2] == [size, modified] else None


def remember_sha256(folder: Path, path: Path, sha256: str) -> None:
    """Keep the sum of ``path``. In a folder that cannot be written, nothing is kept and nothing is wrong."""
    place, size, modified = _key(path)
    try:
        with exclusive(folder / f"{REMEMBERED}.lock"):
            entries = _read(folder / REMEMBERED)
            entries[place] = [size, modified, sha256]
            atomic_write(folder / REMEMBERED, json.dumps(entries, indent=1, sort_keys=True).encode())
    except OSError as error:
        log.info("The sum of %s cannot be remembered, so it is computed at every start: %s", path.name, error)


def sha256_once(folder: Path, path: Path, *, again: bool = False) -> str:
    """The sum of ``path``: the remembered one unless ``again``, else computed (seconds a gigabyte) and remembered."""
    known = None if again else remembered_sha256(folder, path)
    if known is not None:
        return known
    if path.stat().st_size > LARGE_BYTES:
        log.info("Checking %s, once.", path.name)
    before = _key(path)
    sha256 = sha256_file(path)
    if _key(path) == before:
        remember_sha256(folder, path, sha256)
    return sha256


def first_use_sha256(folder: Path, name: str) -> str | None:
    """The sum kept when the file came first, or None. Raises ValueError for a damaged lock file."""
    return _read_lock(folder).get(name)


def keep_first_use(folder: Path, name: str, sha256: str) -> None:
    """Trust this sum of ``name`` from now on; an earlier one stays. Raises OSError where it cannot be written."""
    with exclusive(folder / f".{LOCK}.lock"):
        sums = _read_lock(folder)
        sums.setdefault(name, sha256)
        atomic_write(folder / LOCK, (json.dumps(sums, indent=2, sort_keys=True) + "\n").encode())


def _read_lock(folder: Path) -> dict[str, str]:
    path = folder / LOCK
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}). It holds the sums trusted at first use: restore it, or delete it to trust "
            "the files that are there now."
        ) from error
    return content
