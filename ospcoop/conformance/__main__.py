"""The command: every file of a folder of golden vectors, a line an array, and a closing count."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ospcoop.conformance.clip_cases import build_model, check_drop, check_local, check_prompts, check_resnet
from ospcoop.conformance.detection_cases import check_detection
from ospcoop.conformance.negrefine_cases import check_negrefine
from ospcoop.conformance.pixel_cases import check_augmentation, check_geometry
from ospcoop.conformance.training_cases import check_losses, check_trajectory
from ospcoop.conformance.vectors import CASE_ERRORS, Row, Vectors

MODEL_FILE = "clip_tiny.npz"
WITHOUT_MODEL = {
    "losses.npz": check_losses,
    "detection.npz": check_detection,
    "geometry_scripts.npz": check_geometry,
}
WITH_MODEL = {
    "clip_local.npz": check_local,
    "prompt_learner.npz": check_prompts,
    "clip_score.npz": check_drop,
    "augmentation.npz": check_augmentation,
    "negrefine.npz": check_negrefine,
    "trajectory.npz": check_trajectory,
}
RESNET_FILE = "clip_rn.npz"
FILES = (MODEL_FILE, RESNET_FILE, *WITH_MODEL, *WITHOUT_MODEL)


def check_folder(folder: Path) -> list[Row]:
    """Every comparison, files in a fixed order. A missing, foreign or damaged file is a failed row."""
    rows: list[Row] = []
    opened: dict[str, Vectors] = {}
    for name in FILES:
        try:
            opened[name] = Vectors(folder / name)
        except FileNotFoundError:
            rows.append(_failed(name, "the file is missing"))
        except CASE_ERRORS as error:
            rows.append(_failed(name, f"the file cannot be read: {error}"))
    rows += [
        _failed(path.name, "no case covers this file")
        for path in sorted(folder.glob("*.npz"))
        if path.name not in FILES
    ]

    model = None
    if MODEL_FILE in opened:
        tiny = opened[MODEL_FILE]
        with tiny.case("model"):
            model = build_model(tiny)
        if RESNET_FILE in opened:
            check_resnet(opened[RESNET_FILE], tiny)
    for name, check in WITH_MODEL.items():
        if name in opened and model is not None:
            check(opened[name], model)
    for name, check in WITHOUT_MODEL.items():
        if name in opened:
            check(opened[name])

    for name in FILES:
        if name in opened:
            rows += opened[name].rows
            rows += [_failed(name, "no case covers this array", array) for array in opened[name].untouched()]
    return rows


def _failed(file: str, note: str, array: str = "") -> Row:
    return Row(file, array, None, "", False, note)


def format_row(row: Row) -> str:
    error = "-" if row.error is None else f"{row.error:.3g}"
    line = f"{row.file:<22} {row.array:<62} {error:>10}  {row.allowed:<14} {'ok' if row.passed else 'FAIL'}"
    return f"{line}  {row.note}" if row.note else line


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the comparison; 0 when all passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m ospcoop.conformance", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of golden vectors (*.npz)")
    folder = parser.parse_args(arguments).folder
    print(f"{'file':<22} {'array':<62} {'max error':>10}  {'tolerance':<14} result")
    rows = check_folder(folder)
    for row in rows:
        print(format_row(row))
    failed = [row for row in rows if not row.passed]
    print(f"{len(rows)} comparisons, {len(rows) - len(failed)} ok, {len(failed)} failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
