"""The ground truth of the flat ImageNet folder, in each of the forms it is passed around in.

The forms are told apart by their content:

- ``<file> <index>``: Caffe's ``val.txt``; the index is 0 to 999 in the order of the sorted wnids;
- ``<file> <wnid>`` or ``<file>,<wnid>,...``, with or without a heading;
- Kaggle's ``LOC_val_solution.csv``: ``<stem>,<wnid> x0 y0 x1 y1 ...``;
- one wnid a line, in the order of the sorted file names;
- one number a line: the development kit's ILSVRC2012_validation_ground_truth.txt. These numbers are
  ILSVRC2012_IDs, whose order is *not* that of the wnids; only the kit's ``meta.mat`` tells which is which.
"""

from __future__ import annotations

import re
from pathlib import Path

from generation.classes import ClassList
from generation.sources.spec import SourceImportError

FULL_VAL_LINES = 50_000
MAX_GROUND_TRUTH_BYTES = 64 * 2**20

_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
_WNID = re.compile(r"n\d{8}")
_HEADINGS = frozenset({"imageid", "image", "filename", "file", "path", "name", "fname", "id"})


def read_ground_truth(path: Path, photos: list[str], classes: ClassList) -> dict[str, int]:
    """The class index of each photo (by file name) that the file gives a class of the class list.

    ``photos`` are the file names in the folder, sorted. A photo whose class is not in the class list, or
    that the file does not name, is left out. Raises :class:`SourceImportError` where the file is missing, of no known
    form, or cannot belong to these photos.
    """
    lines = _lines(path)
    fields = [re.split(r"[\s,]+", line) for line in lines]
    if all(len(row) == 1 for row in fields):
        values = [row[0] for row in fields]
        if all(_WNID.fullmatch(value) for value in values):
            wnids = values
        elif all(value.isdecimal() for value in values):
            wnids = _wnids_of_ids(path, values)
        else:
            raise _unknown_form(path, lines[0])
        return _by_line(path, wnids, photos, classes)
    return _by_name(path, fields, photos, classes)


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_GROUND_TRUTH_BYTES:
            raise SourceImportError(f"{path} is too large to be a ground-truth file.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceImportError(f"The ground-truth file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SourceImportError(f"The ground-truth file {path} is not text.") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise SourceImportError(f"The ground-truth file {path} is empty.")
    return lines


def _unknown_form(path: Path, line: str) -> SourceImportError:
    return SourceImportError(
        f"{path} is of no known form; its line {line[:80]!r} is not `<file> <index>`, `<file> <wnid>`, "
        "Kaggle's `<stem>,<wnid> x0 y0 x1 y1`, a wnid, or an ILSVRC2012_ID."
    )


def _by_line(path: Path, wnids: list[str], photos: list[str], classes: ClassList) -> dict[str, int]:
    """Line n belongs to the n-th photo; of the full list, to photo number n even where only some photos are here."""
    if len(wnids) == len(photos):
        pairs = zip(photos, wnids, strict=True)
    else:
        matches = [_VAL_NAME.fullmatch(name) for name in photos]
        numbers = [int(match[1]) if match else 0 for match in matches]
        if len(wnids) != FULL_VAL_LINES or not all(1 <= number <= FULL_VAL_LINES for number in numbers):
            raise SourceImportError(
                f"{path} has {len(wnids)} lines for {len(photos)} photos; with one class a line the two must be equal, "
                f"or the file the full {FULL_VAL_LINES} lines and every photo named ILSVRC2012_val_<8 digits>."
            )
        pairs = ((name, wnids[number - 1]) for name, number in zip(photos, numbers, strict=True))
    return {name: classes.index_of[wnid] for name, wnid in pairs if wnid in classes.index_of}


def _by_name(path: Path, fields: list[list[str]], photos: list[str], classes: ClassList) -> dict[str, int]:
    if fields[0][0].lower() in _HEADINGS:
        fields = fields[1:]
    by_stem: dict[str, int | None] = {}
    for row in fields:
        stem = _stem(row[0])
        index = _class_of_row(path, row, classes)
        if by_stem.setdefault(stem, index) != index:
            raise SourceImportError(f"{path} gives {row[0]} two classes.")
    found = {name: by_stem.get(_stem(name)) for name in photos}
    if photos and not any(_stem(name) in by_stem for name in photos):
        raise SourceImportError(f"{path} names none of the {len(photos)} photos in the folder, such as {photos[0]}.")
    return {name: index for name, index in found.items() if index is not None}


def _stem(name: str) -> str:
    """``val/ILSVRC2012_val_00000001.JPEG`` and ``ILSVRC2012_val_00000001`` are the same photo."""
    return Path(name).stem


def _class_of_row(path: Path, row: list[str], classes: ClassList) -> int | None:
    """The class index of ``<file> <index>`` or ``<file> <wnid> ...``; None for a wnid that is not in the class list."""
    values = [value for value in row[1:] if value]
    if len(values) == 1 and values[0].isdecimal():
        index = int(values[0])
        if index >= len(classes):
            raise SourceImportError(
                f"{path} gives {row[0]} the index {index}; indices go from 0 to {len(classes) - 1}. "
                "If the file counts from 1, give one that names wnids."
            )
        return index
    if not values or not _WNID.fullmatch(values[0]):
        raise _unknown_form(path, " ".join(row))
    if len({value for value in values if _WNID.fullmatch(value)}) > 1:
        raise SourceImportError(f"{path} gives {row[0]} more than one wnid.")
    return classes.index_of.get(values[0])


def _wnids_of_ids(path: Path, ids: list[str]) -> list[str]:
    places = (path.parent / "meta.mat", path.parent.parent / "data" / "meta.mat", path.parent / "data" / "meta.mat")
    meta = next((place for place in places if place.is_file()), None)
    if meta is None:
        raise SourceImportError(
            f"{path} holds ILSVRC2012_IDs, whose order is not that of the wnids. Put the development kit's "
            f"data/meta.mat beside it ({places[0]}), or give a file that names wnids, such as Kaggle's "
            "LOC_val_solution.csv."
        )
    wnid_of = _read_meta(meta)
    unknown = next((value for value in ids if int(value) not in wnid_of), None)
    if unknown is not None:
        raise SourceImportError(f"{path} has the number {unknown}, which {meta} does not know.")
    return [wnid_of[int(value)] for value in ids]


def _read_meta(meta: Path) -> dict[int, str]:
    """ILSVRC2012_ID to wnid, of the leaves of the kit's ``synsets`` table."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise SourceImportError(
            f"Reading {meta} takes scipy, which is not installed; run `uv sync`, or give a ground-truth file that "
            "names wnids."
        ) from error
    try:
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        leaves = synsets[synsets["num_children"] == 0]
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except (MatReadError, OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise SourceImportError(f"{meta} is not the development kit's meta.mat: {error}.") from error
    if not all(_WNID.fullmatch(wnid) for wnid in wnid_of.values()):
        raise SourceImportError(f"{meta} is not the development kit's meta.mat: its WNID column holds no wnids.")
    return wnid_of
