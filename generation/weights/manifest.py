"""The list of foreign weights: what each file is, where it comes from and how far its sum is known."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from generation.weights.errors import UnknownWeights

MANIFEST_FILE = Path(__file__).with_name("manifest.toml")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
KnownFrom = Literal["publisher", "projects"]


def is_safe_url(url: str) -> bool:
    """Whether ``url`` is https, or plain http that does not leave this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


@dataclass(frozen=True)
class WeightFile:
    """One file: ``path`` relative to the weights folder, ``size`` in bytes. Without a sum, the first is trusted.

    Raises ValueError for what cannot be a manifest's line: a path that leaves the folder, an unsafe URL, a broken sum.
    """

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None
    known_from: KnownFrom | None = None
    evidence: str = ""

    def __post_init__(self) -> None:
        relative = PurePosixPath(self.path)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"The manifest names a file outside the weights folder: {self.path!r}.")
        if not is_safe_url(self.url):
            raise ValueError(f"The manifest's URL of {self.path} is not https: {self.url}.")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"The manifest's sha256 of {self.path} is not 64 lower-case hexadecimal digits.")
        if (self.sha256 is None) != (self.known_from is None):
            raise ValueError(f"The manifest must say of {self.path} where its sha256 is known from, if it has one.")

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Weight:
    """What one name stands for: a file, or a ``folder`` of files that are loaded together.

    ``variable`` is the environment variable that puts another place before the weights folder.
    """

    name: str
    title: str
    variable: str
    licence: str
    used_by: str
    published: bool
    files: tuple[WeightFile, ...]
    folder: str | None = None

    @property
    def path(self) -> str:
        """Of the file or folder a backend is given, relative to the weights folder."""
        return self.folder or self.files[0].path

    @property
    def main_file(self) -> WeightFile:
        """The file with the weights themselves, the largest."""
        return max(self.files, key=lambda file: file.size or 0)

    @property
    def size(self) -> int | None:
        """Bytes of all files together; None if one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def pin_variable(self) -> str:
        """The environment variable with the sha256 of a file that is meant to be another than the manifest's."""
        return f"{self.variable}_SHA256"


Manifest = tuple[Weight, ...]


@cache
def load_manifest(path: Path = MANIFEST_FILE) -> Manifest:
    """Every entry, in the order to show. Raises ValueError where the file is not a manifest."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["weights"]
    return tuple(
        Weight(**{**entry, "files": tuple(WeightFile(**file) for file in entry["files"])}) for entry in entries
    )


def find_weight(name: str, manifest: Manifest | None = None) -> Weight:
    """The entry called ``name``. Raises :class:`UnknownWeights`, naming the ones there are."""
    known = {weight.name: weight for weight in manifest or load_manifest()}
    if name not in known:
        raise UnknownWeights(f"There are no weights called {name!r}. Choose from: {', '.join(known)}.")
    return known[name]


def find_weights(names: Sequence[str] | None, manifest: Manifest | None = None) -> list[Weight]:
    """The entries of these names without repeats; None stands for all."""
    if names is None:
        return list(manifest or load_manifest())
    return [find_weight(name, manifest) for name in dict.fromkeys(names)]


def published_names(manifest: Manifest | None = None) -> list[str]:
    """What the published pipeline and OSPCoOp's main results need: a good answer to "fetch" without names."""
    return [weight.name for weight in manifest or load_manifest() if weight.published]


def readable_size(size: int) -> str:
    """Bytes for people: "2.39 GiB", "358 MiB", "570 B"."""
    if size >= 1024**3:
        return f"{size / 1024**3:.2f} GiB"
    if size >= 1024**2:
        return f"{size / 1024**2:.0f} MiB"
    return f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} B"
