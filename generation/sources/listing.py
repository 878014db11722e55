"""What lies in a folder of labelled photos: every entry once, in a fixed order, each with its class or why it has none.

Only names and links are looked at here; no photo is opened.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from generation.classes import ClassList
from generation.decode import NOT_AN_IMAGE
from generation.sources.ground_truth import read_ground_truth
from generation.sources.spec import SourceImportError

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".jpe", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

UNKNOWN_CLASS = "unknown_class"
OUTSIDE_ROOT = "outside_root"
BAD_NAME = "bad_name"

_DEMO_NAME = re.compile(r"imagenet_\d{2}_(\d{1,3})\.jpg")


@dataclass(frozen=True)
class Listed:
    """One entry of the folder. ``path`` is relative to the root; ``class_index`` is None where ``code`` says why."""

    path: str
    class_index: int | None = None
    code: str = ""
    message: str = ""


def list_imagefolder(root: Path, classes: ClassList) -> list[Listed]:
    """``root/<wnid>/<file>``, one level and no deeper, sorted by folder and file name."""
    found = []
    for folder in _sorted_entries(root):
        if not _leads_to_folder(folder):
            found.append(_file_beside_the_class_folders(root, folder))
        elif not _inside(folder, root):
            found.append(Listed(_shown(folder.name), code=OUTSIDE_ROOT, message=_outside(folder)))
        else:
            index = classes.index_of.get(folder.name)
            unknown = f"The folder {_shown(folder.name)!r} is not one of the {len(classes)} wnids."
            for entry in _sorted_entries(Path(folder.path)):
                found.append(_listed(root, entry, lambda _, index=index: index, unknown))
    return found


def list_flat(root: Path, ground_truth: Path, classes: ClassList) -> list[Listed]:
    """The photos lying in ``root`` itself, sorted by name, with their classes from ``ground_truth``.

    Raises :class:`SourceImportError` where the ground truth cannot be used as it is.
    """
    truth_file = os.path.realpath(ground_truth)
    entries = [entry for entry in _sorted_entries(root) if os.path.realpath(entry.path) != truth_file]
    photos = [entry.name for entry in entries if _has_image_name(entry.name) and not _leads_to_folder(entry)]
    truth = read_ground_truth(ground_truth, photos, classes)
    unknown = f"{ground_truth.name} gives this file no class of the class list."
    return [_listed(root, entry, lambda name: truth.get(name), unknown) for entry in entries]


def list_demo(classes: ClassList) -> tuple[Path, list[Listed]]:
    """The twenty ImageNet photos that the foolbox package carries, and the folder they lie in.

    Their names end in the class index. foolbox is only looked up, not imported: that would load torch.
    """
    spec = find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        raise SourceImportError("The demo photos come with the package foolbox, which is not installed; run `uv sync`.")
    root = Path(os.path.realpath(Path(next(iter(spec.submodule_search_locations))) / "data"))
    found = []
    for entry in _sorted_entries(root):
        match = _DEMO_NAME.fullmatch(entry.name)
        if match:
            index = int(match[1])
            found.append(_listed(root, entry, lambda _, index=index: index, ""))
    if not found:
        raise SourceImportError(f"{root} holds no demo photos (imagenet_*.jpg); reinstall foolbox with `uv sync`.")
    return root, found


def real_root(root: Path | None) -> Path:
    """The folder with its links followed. Raises :class:`SourceImportError` where it is not a readable folder."""
    if root is None:
        raise SourceImportError("Name the folder with the photos.")
    folder = Path(os.path.realpath(root.expanduser()))
    if not folder.exists():
        raise SourceImportError(f"There is no folder {root}.")
    if not folder.is_dir():
        raise SourceImportError(f"{root} is a file; name the folder that holds the photos.")
    return folder


def _sorted_entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        # Going on would make an unreadable folder look like an empty one.
        raise SourceImportError(f"The folder {folder} cannot be listed: {error.strerror}.") from error


def _listed(root: Path, entry: os.DirEntry, class_of: Callable[[str], int | None], unknown: str) -> Listed:
    path = _shown(os.path.relpath(entry.path, root))
    skip = _reason_to_skip(root, entry)
    if skip:
        return Listed(path, code=skip[0], message=skip[1])
    index = class_of(entry.name)
    return Listed(path, code=UNKNOWN_CLASS, message=unknown) if index is None else Listed(path, index)


def _file_beside_the_class_folders(root: Path, entry: os.DirEntry) -> Listed:
    return _listed(root, entry, lambda _: None, "The file lies in no class folder; photos belong in <root>/<wnid>/.")


def _reason_to_skip(root: Path, entry: os.DirEntry) -> tuple[str, str] | None:
    if not _inside(entry, root):
        return OUTSIDE_ROOT, _outside(entry)
    if _leads_to_folder(entry):
        return NOT_AN_IMAGE, "This is a folder; photos are not looked for at this depth."
    if not _has_image_name(entry.name):
        return NOT_AN_IMAGE, "The name is hidden or does not end as an image's does (.JPEG, .png, ...)."
    if not _leads_to_file(entry):
        # A pipe or a device would block whoever opens it.
        return NOT_AN_IMAGE, "This is a broken link or not a regular file."
    if _shown(entry.name) != entry.name:
        return BAD_NAME, "The name is not valid UTF-8 and cannot be recorded; rename the file."
    return None


def _has_image_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _leads_to_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that loops leads nowhere.
        return False


def _leads_to_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _inside(entry: os.DirEntry, root: Path) -> bool:
    """Whether an entry of a folder inside ``root`` (a real path) is there itself: only a link can lead out."""
    return not entry.is_symlink() or Path(os.path.realpath(entry.path)).is_relative_to(root)


def _outside(entry: os.DirEntry) -> str:
    target = _shown(os.path.realpath(entry.path))
    return f"The link leads out of the folder, to {target}; import from where the photos are, or copy them in."


def _shown(name: str) -> str:
    """The name as text that can be printed and stored: bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def stems_that_repeat(listed: list[Listed]) -> frozenset[str]:
    """Stems that more than one labelled file of the list has, whether or not the files turn out to be readable."""
    counts = Counter(Path(item.path).stem for item in listed if item.class_index is not None)
    return frozenset(stem for stem, count in counts.items() if count > 1)
