"""Bringing weights into the folder: from their publishers, or from a folder carried over from another machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from db.files import atomic_file, sha256_file, sync_folder
from db.progress import NoProgress, Progress
from generation.weights.download import CHUNK_BYTES, DISK_FULL, Opener, Patience, default_opener, discard, download
from generation.weights.errors import DiskFull, WeightsMissing, WrongWeights
from generation.weights.manifest import Manifest, Weight, WeightFile, find_weights, readable_size
from generation.weights.places import Place, fetch_command, offline_reason, override_path, weights_folder
from generation.weights.sums import keep_first_use, remember_sha256

ROOM_TO_SPARE = 64 * 1024**2


@dataclass(frozen=True)
class Fetched:
    """What became of one file. ``first_use``: nobody vouches for its sum, which was trusted now."""

    name: str
    path: Path
    how: Literal["there already", "downloaded", "copied"]
    sha256: str
    first_use: bool = False


def fetch(
    names: Sequence[str] | None,
    folder: Path | str | None = None,
    progress: Progress | None = None,
    *,
    source_dir: Path | str | None = None,
    offline: bool | None = None,
    opener: Opener | None = None,
    patience: Patience | None = None,
    manifest: Manifest | None = None,
) -> list[Fetched]:
    """Have every file of ``names`` (None: all) in the weights folder, checked. One result a file.

    ``source_dir``: copy from there and never use the network. ``offline``: True forbids the network, None asks the
    environment (IMAGENET_BG_OFFLINE, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE), False allows it. ``progress`` counts the
    bytes of all the files together. Files that are right already are left alone, wrong ones are named and never
    overwritten. A second process that wants the same file waits for the first.

    Raises :class:`WeightsMissing` (offline, or not in ``source_dir``), :class:`WrongWeights`, ``DownloadFailed``,
    :class:`DiskFull`, ``UnknownWeights`` and ``db.progress.Cancelled``. After any of them, and after Ctrl-C, the
    ``.part`` stays and the same call goes on from it; only bytes that turned out wrong are deleted.
    """
    weights, place = find_weights(names, manifest), weights_folder(folder)
    source = None if source_dir is None else Path(source_dir).expanduser().absolute()
    if source is not None and not source.is_dir():
        raise WeightsMissing(f"There is no folder {source} to take weights from.")
    forbidden = offline_reason() if offline is None else ("asked for" if offline else None)
    opener, patience = opener or default_opener(), patience or Patience()
    bar = _Bytes(progress or NoProgress(), weights)
    results = []
    for weight in weights:
        if override_path(weight) is not None:
            bar.log(f"{weight.variable} is set: {weight.name} is used from {override_path(weight)}, not from {place}.")
        for file in weight.files:
            job = _Job(weight, file, place, bar)
            if source is not None:
                results.append(job.copy(source, patience))
            elif forbidden is not None:
                results.append(job.offline(forbidden))
            else:
                results.append(job.download(opener, patience))
            bar.finish(file, results[-1].path)
    return results


class _Bytes:
    """Progress over all files of a call, in bytes."""

    def __init__(self, progress: Progress, weights: Sequence[Weight]) -> None:
        sizes = [weight.size for weight in weights]
        self._progress, self._before = progress, 0
        self._total = None if None in sizes else sum(sizes)
        self.log = progress.log

    def at(self, file: WeightFile, done: int, what: str = "") -> None:
        self._progress.update(self._before + done, self._total, f"{file.name}{what}")

    def finish(self, file: WeightFile, path: Path) -> None:
        self._before += path.stat().st_size if file.size is None else file.size
        self.at(file, 0)


@dataclass(frozen=True)
class _Job:
    """One file to bring."""

    weight: Weight
    file: WeightFile
    folder: Path
    bar: _Bytes

    @property
    def target(self) -> Path:
        return self.folder / self.file.path

    def offline(self, reason: str) -> Fetched:
        there = self._there()
        if there is None:
            command = fetch_command(self.weight.name, self.folder)
            raise WeightsMissing(
                f"{self.target} is missing, and offline mode ({reason}) forbids the network. Allow it for once, or "
                f"bring the file in a folder and use `{command} --from DIR`."
            )
        return there

    def download(self, opener: Opener, patience: Patience) -> Fetched:
        there = self._there()
        if there is not None:
            return there
        part = self.target.with_name(f"{self.target.name}.part")
        with self._alone(patience):
            there = self._there()
            if there is not None:
                return there
            self._need_room(part)
            sha256 = self._download_right(part, opener, patience)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            part.replace(self.target)
            discard(part)
            sync_folder(self.target.parent)
        return self._came("downloaded", sha256)

    def copy(self, source: Path, patience: Patience) -> Fetched:
        there = self._there()
        if there is not None:
            return there
        candidates = [source / self.file.path, source / self.file.name]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            places = " and no ".join(str(path) for path in dict.fromkeys(candidates))
            raise WeightsMissing(f"{self.weight.title} is not in {source}: there is no {places}.")
        with self._alone(patience):
            there = self._there()
            if there is not None:
                return there
            self._need_room(None)
            sha256 = self._copy_right(found)
        return self._came("copied", sha256)

    def _there(self) -> Fetched | None:
        if not self.target.exists():
            return None
        sha256 = Place(self.weight, self.folder).check(self.file)
        return Fetched(self.file.name, self.target, "there already", sha256)

    def _came(self, how: Literal["downloaded", "copied"], sha256: str) -> Fetched:
        remember_sha256(self.folder, self.target, sha256)
        first_use = self._expected() is None
        if first_use:
            keep_first_use(self.folder, self.file.path, sha256)
            self.bar.log(
                f"Nobody vouches for the sha256 of {self.file.name}. The file that came, {sha256}, is trusted from now "
                "on; weights.lock.json keeps its sum. Compare it with one from elsewhere if you can."
            )
        return Fetched(self.file.name, self.target, how, sha256, first_use)

    def _expected(self) -> str | None:
        """Of the file in the weights folder, whatever a variable puts before it."""
        return Place(self.weight, self.folder).expected_sha256(self.file)

    def _download_right(self, part: Path, opener: Opener, patience: Patience) -> str:
        """The sum of what came. Bytes that were put together from several answers get a second, fresh try."""
        for last in (False, True):
            resumed = download(
                self.file.url,
                part,
                size=self.file.size,
                has_sum=self._expected() is not None,
                opener=opener,
                patience=patience,
                progress=lambda have: self.bar.at(self.file, have),
            )
            self.bar.at(self.file, part.stat().st_size, ": checking")
            sha256 = sha256_file(part)
            if self._expected() in (None, sha256):
                return sha256
            discard(part)
            if last or not resumed:
                break
            self.bar.log(f"The pieces of {self.file.name} do not make the file; once more from the start.")
        raise WrongWeights(
            f"{self.file.url} did not give {self.weight.title}: sha256 {sha256}, expected {self._expected()}. What "
            "came was deleted. Either the publisher changed the file or something on the way did; bring the right file "
            f"with `{fetch_command(self.weight.name, self.folder)} --from DIR`."
        )

    def _copy_right(self, source: Path) -> str:
        digest, have = hashlib.sha256(), 0
        try:
            with source.open("rb") as reading, atomic_file(self.target) as writing:
                while chunk := reading.read(CHUNK_BYTES):
                    writing.write(chunk)
                    digest.update(chunk)
                    have += len(chunk)
                    self.bar.at(self.file, have)
                self._refuse_wrong(source, have, digest.hexdigest())
        except OSError as error:
            if error.errno in DISK_FULL:
                raise DiskFull(f"There is no room left for {self.target}: {error.strerror}.") from error
            raise
        return digest.hexdigest()

    def _refuse_wrong(self, source: Path, size: int, sha256: str) -> None:
        if self._expected() not in (None, sha256):
            raise WrongWeights(
                f"{source} is not {self.weight.title}: {size:,} bytes with sha256 {sha256}, expected "
                f"{'any number' if self.file.size is None else f'{self.file.size:,}'} with {self._expected()}. Nothing "
                "was copied. Copy it again from the machine where `launch.py weights verify` finds it right."
            )

    def _need_room(self, part: Path | None) -> None:
        if self.file.size is None:
            return
        self.target.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part is not None and part.exists() else 0
        free, needed = shutil.disk_usage(self.target.parent).free, self.file.size - have
        if free < needed + ROOM_TO_SPARE:
            raise DiskFull(
                f"{self.target} needs {readable_size(needed)} and some to spare, but only {readable_size(free)} are "
                "free there. Make room, or put IMAGENET_BG_WEIGHTS on another disk."
            )

    @contextmanager
    def _alone(self, patience: Patience) -> Iterator[None]:
        """Wait, cancellably, until no other process brings this file, and keep the others waiting."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with self.target.with_name(f".{self.target.name}.lock").open("a") as handle:
            waited = False
            while not _try_lock(handle):
                if not waited:
                    self.bar.log(f"Another process is bringing {self.file.name}; waiting for it.")
                waited = True
                self.bar.at(self.file, 0, ": waiting for another process")
                patience.sleep(0.5)
            yield


def _try_lock(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
