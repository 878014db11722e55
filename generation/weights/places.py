"""Where a weights file lies, and whether it is the right one. Nothing here uses the network."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from generation.weights.errors import WeightsMissing, WrongWeights
from generation.weights.manifest import Manifest, Weight, WeightFile, find_weight, find_weights, readable_size
from generation.weights.sums import first_use_sha256, keep_first_use, remembered_sha256, sha256_once

FOLDER_VARIABLE = "IMAGENET_BG_WEIGHTS"
DEFAULT_FOLDER = Path("~/.cache/imagenet-bg/weights")
OFFLINE_VARIABLES = ("IMAGENET_BG_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
FETCH_COMMAND = "uv run launch.py weights fetch"

State = Literal["present", "missing", "wrong", "unverified"]


@dataclass(frozen=True)
class WeightRow:
    """One line of ``launch.py weights list`` or ``verify``.

    ``file`` is relative to the weights folder and ``path`` the place looked at (another one where ``variable`` is
    set). ``size`` in bytes. "unverified" is there with the right size, but its sum was not computed since it changed.
    ``sum_from`` says how far the sums are known: "publisher", "projects", or "first use".
    ``note`` says what is wrong and what to do, or which variable or pin is in force; empty otherwise.
    """

    name: str
    title: str
    file: str
    path: Path
    size: int | None
    state: State
    licence: str
    used_by: str
    variable: str
    sum_from: str
    note: str = ""


def weights_folder(folder: Path | str | None = None) -> Path:
    """The given folder, else that of IMAGENET_BG_WEIGHTS, else ``~/.cache/imagenet-bg/weights``; it need not exist."""
    chosen = folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER
    return Path(chosen).expanduser().absolute()


def offline_reason() -> str | None:
    """The environment variable that forbids the network, as ``NAME=value``, or None."""
    for name in OFFLINE_VARIABLES:
        value = os.environ.get(name, "")
        if value.strip().lower() in ("1", "true", "yes", "on"):
            return f"{name}={value}"
    return None


def fetch_command(name: str, folder: Path) -> str:
    """What to type to get the weights called ``name`` into ``folder``."""
    command = f"{FETCH_COMMAND} {name}"
    return command if folder == weights_folder() else f"{FOLDER_VARIABLE}={shlex.quote(str(folder))} {command}"


def override_path(weight: Weight) -> Path | None:
    """The place named by the weight's environment variable, if it is set."""
    value = os.environ.get(weight.variable, "").strip()
    return Path(value).expanduser().absolute() if value else None


def locate(name: str, folder: Path | str | None = None, *, manifest: Manifest | None = None) -> Path:
    """The file (for BERT: the folder) to load, after its size and, once, its sha256 were checked.

    The weight's own environment variable comes before the weights folder. The first call after a file changed
    reads it whole: seconds a gigabyte. Raises :class:`WeightsMissing`, :class:`WrongWeights` or ``UnknownWeights``.
    """
    place = Place.in_force(find_weight(name, manifest), weights_folder(folder))
    for file in place.weight.files:
        place.check(file)
    return place.root


def weights_sha256(name: str, folder: Path | str | None = None, *, manifest: Manifest | None = None) -> dict[str, str]:
    """The sha256 of each file of ``name``, for a recipe's fingerprint. Raises as :func:`locate` does."""
    place = Place.in_force(find_weight(name, manifest), weights_folder(folder))
    return {file.name: place.check(file) for file in place.weight.files}


def verify(
    names: Sequence[str] | None = None, folder: Path | str | None = None, *, manifest: Manifest | None = None
) -> list[WeightRow]:
    """A row for each name (None: all) after every file that is there was read whole, whatever was remembered of it."""
    return [_row(weight, weights_folder(folder), _read_whole) for weight in find_weights(names, manifest)]


def list_weights(folder: Path | str | None = None, *, manifest: Manifest | None = None) -> list[WeightRow]:
    """A row for each entry of the manifest, by what is remembered: reads no weights and returns at once."""
    return [_row(weight, weights_folder(folder), _glance) for weight in find_weights(None, manifest)]


@dataclass(frozen=True)
class Place:
    """Where the files of a weight are looked for, and what they must be.

    ``folder`` is the weights folder, which also keeps the sums. ``pin`` is the sha256 that replaces the manifest's
    for the main file; the small files beside a pinned one may be any.
    """

    weight: Weight
    folder: Path
    override: Path | None = None
    pin: str | None = None

    @classmethod
    def in_force(cls, weight: Weight, folder: Path) -> Place:
        """The place of the weight's environment variable if that is set, else the weights folder."""
        override = override_path(weight)
        pin = os.environ.get(weight.pin_variable, "").strip().lower()
        return cls(weight, folder, override, pin or None) if override else cls(weight, folder)

    @property
    def root(self) -> Path:
        return self.override or self.folder / self.weight.path

    def path(self, file: WeightFile) -> Path:
        return self.root / file.name if self.weight.folder else self.root

    def expected_sha256(self, file: WeightFile) -> str | None:
        """The pin's, the manifest's, or the one kept at first use; None if there is none yet."""
        if self.pin:
            return self.pin if file is self.weight.main_file else None
        return file.sha256 or first_use_sha256(self.folder, file.path)

    def check(self, file: WeightFile, *, again: bool = False) -> str:
        """The sha256 of ``file``, computed anew if ``again``, when it is the right one.

        A sum that nobody vouches for is kept when it is first seen. Raises WeightsMissing and WrongWeights.
        """
        self.check_size(file)
        found, expected = sha256_once(self.folder, self.path(file), again=again), self.expected_sha256(file)
        if expected is None and not self.pin:
            keep_first_use(self.folder, file.path, found)
        if expected not in (None, found):
            raise WrongWeights(
                f"{self.path(file)} is not {self.weight.title}: sha256 {found}, expected {expected}"
                f"{'' if file.sha256 or self.pin else ' (the first that came)'}. {self._remedy()}"
            )
        return found

    def check_size(self, file: WeightFile) -> None:
        """Raises WeightsMissing where ``file`` is not there and WrongWeights where its size cannot be right."""
        if not self.path(file).is_file():
            raise WeightsMissing(self._missing(file))
        found = self.path(file).stat().st_size
        if file.size not in (None, found) and not self.pin:
            raise WrongWeights(
                f"{self.path(file)} is not {self.weight.title}: {found:,} bytes, expected {file.size:,} with "
                f"sha256 {self.expected_sha256(file)}. {self._remedy()}"
            )

    def _missing(self, file: WeightFile) -> str:
        weight = self.weight
        if self.override:
            return (
                f"{weight.variable} is set to {self.override}, but there is no file {self.path(file)}. "
                f"Correct {weight.variable} or unset it."
            )
        command = fetch_command(weight.name, self.folder)
        size = "" if weight.size is None else f", {readable_size(weight.size)}"
        return (
            f"{weight.title} ({weight.name}{size}) is missing: there is no {self.path(file)}. Fetch it with "
            f"`{command}`; on a machine without a network, bring the {'files' if weight.folder else 'file'} in a "
            f"folder and use `{command} --from DIR`, or set {weight.variable} to where it is."
        )

    def _remedy(self) -> str:
        weight = self.weight
        pin = f"set {weight.pin_variable} to its sha256 (`sha256sum FILE`)"
        if self.override:
            return f"{weight.variable} points there: correct or unset it, or, if you mean this file, {pin}."
        return (
            f"Delete it and run `{fetch_command(weight.name, self.folder)}`. If you mean this file, "
            f"set {weight.variable} to where it is and {pin}."
        )


def _read_whole(place: Place, file: WeightFile) -> bool:
    place.check(file, again=True)
    return True


def _glance(place: Place, file: WeightFile) -> bool:
    """Whether the sum is remembered; if so it is compared too."""
    place.check_size(file)
    if remembered_sha256(place.folder, place.path(file)) is None:
        return False
    place.check(file)
    return True


def _row(weight: Weight, folder: Path, look: Callable[[Place, WeightFile], bool]) -> WeightRow:
    place = Place.in_force(weight, folder)
    state, note = _state(place, look)
    paths = [place.path(file) for file in weight.files]
    there = all(path.is_file() for path in paths)
    return WeightRow(
        name=weight.name,
        title=weight.title,
        file=weight.path,
        path=place.root,
        size=sum(path.stat().st_size for path in paths) if there else weight.size,
        state=state,
        licence=weight.licence,
        used_by=weight.used_by,
        variable=weight.variable,
        sum_from=weight.main_file.known_from or "first use",
        note=note,
    )


def _state(place: Place, look: Callable[[Place, WeightFile], bool]) -> tuple[State, str]:
    try:
        seen = [look(place, file) for file in place.weight.files]
    except WeightsMissing as error:
        return "missing", str(error)
    except WrongWeights as error:
        return "wrong", str(error)
    notes = [f"{place.weight.variable} is set"] if place.override else []
    if place.pin:
        notes.append(f"pinned by {place.weight.pin_variable}, not the manifest's file")
    elif any(file.sha256 is None for file in place.weight.files):
        notes.append("nobody vouches for its sha256; the first that came is trusted")
    return ("present" if all(seen) else "unverified"), "; ".join(notes)
