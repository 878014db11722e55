"""One file of golden vectors: hands out inputs, takes answers, and remembers which arrays were touched."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

# What a faulty folder can make a case raise; a bug of another kind should stop the command with its traceback.
CASE_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Row:
    """One comparison: the largest error found and what was allowed, in words."""

    file: str
    array: str
    error: float | None
    allowed: str
    passed: bool
    note: str = ""


class Vectors:
    """The arrays of one npz file. An expectation is read in :meth:`check` and its kin only, to be compared."""

    def __init__(self, path: Path) -> None:
        self.file = path.name
        self.rows: list[Row] = []
        with np.load(path, allow_pickle=False) as archive:
            self._arrays = {name: archive[name] for name in archive.files}
        self._touched: set[str] = set()

    @property
    def names(self) -> list[str]:
        return list(self._arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def input(self, name: str) -> np.ndarray:
        """An array that a case starts from. LookupError, naming it, when the file lacks it."""
        if name not in self._arrays:
            raise LookupError(f"the array {name} is missing")
        self._touched.add(name)
        return self._arrays[name]

    def strings(self, name: str) -> list[str]:
        return [str(one) for one in self.input(name).tolist()]

    def cases(self, ending: str, required: Sequence[str] = ()) -> list[str]:
        """The ``<case>`` of all arrays ``<case><ending>``, and the required ones, in the file's order."""
        found = [name.removesuffix(ending) for name in self._arrays if name.endswith(ending)]
        return list(dict.fromkeys([*found, *required]))

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Turns an error inside into a failed row, so that the other cases still run."""
        try:
            yield
        except CASE_ERRORS as error:
            self.rows.append(Row(self.file, name, None, "", False, f"{type(error).__name__}: {error}"))

    def check(self, name: str, value: object, *, abs: float = 0.0, rel: float = 0.0) -> None:
        """Passes when ``|value - expected| <= abs + rel |expected|`` everywhere (both 0: exact; nan equals nan)."""
        allowed = "exact" if not abs and not rel else f"{'abs' if abs else 'rel'} {abs or rel:g}"

        def judge(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
            error, size = _errors(got, expected)
            within = bool((error <= abs + rel * size).all())
            shown = error / np.where(size > 0, size, 1) if rel else error
            return float(shown.max(initial=0)), within, ""

        self.check_with(name, value, allowed, judge)

    def check_levels(self, name: str, value: object, levels: int = 1) -> None:
        """Bytes that may be off by ``levels`` grey levels."""
        self.check(name, np.asarray(value, dtype=np.uint8), abs=levels)

    def check_share(self, name: str, value: object, share: float) -> None:
        """Up to ``share`` of the elements may differ; the error is the share that does."""

        def judge(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
            wrong = float(np.mean(got != expected))
            return wrong, wrong <= share, ""

        self.check_with(name, value, f"share {share:g}", judge)

    def check_texts(self, name: str, value: object) -> None:
        """Strings, exactly and in order; the error counts the ones that differ."""

        def judge(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
            wrong = np.flatnonzero((got != expected).ravel())
            first = [str(side.ravel()[wrong[0]]) for side in (got, expected)] if len(wrong) else []
            note = f"first: {first[0]!r}, not {first[1]!r}" if first else ""
            return float(len(wrong)), not len(wrong), note

        self.check_with(name, np.asarray(value, dtype=str), "exact", judge)

    def check_with(
        self,
        name: str,
        value: object,
        allowed: str,
        judge: Callable[[np.ndarray, np.ndarray], tuple[float, bool, str]],
    ) -> None:
        """Compares by ``judge(value, expected) -> (error, passed, note)`` once the shapes agree."""
        expected = self.input(name)
        got = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if got.shape != expected.shape:
            row = Row(self.file, name, None, allowed, False, f"shape {got.shape}, expected {expected.shape}")
        else:
            error, passed, note = judge(got, expected)
            row = Row(self.file, name, error, allowed, passed, note)
        self.rows.append(row)

    def note(self, name: str, passed: bool, note: str) -> None:
        """Records an array that is not compared number by number, and why."""
        self.input(name)
        self.rows.append(Row(self.file, name, None, "", passed, note))

    def untouched(self) -> list[str]:
        """Arrays that no case has read or compared."""
        return [name for name in self._arrays if name not in self._touched]


def _errors(got: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Absolute errors (0 where both are nan or equal, inf where one is nan) and the expectation's finite sizes."""
    a, b = got.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    error = np.abs(np.subtract(a, b, where=~same, out=np.zeros_like(a)))
    error = np.where(np.isnan(error), np.inf, error)
    return error, np.where(np.isfinite(b), np.abs(b), 0.0)
