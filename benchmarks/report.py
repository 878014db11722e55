"""What every benchmark prints: the machine, a readable table, and one JSON object as the last line."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence


def machine() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - a kernel file, not a path of ours
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Left column left, the others right; floats with three digits."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    for row in [list(headers), ["-" * width for width in widths], *cells]:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_figures(figures: Mapping[str, float | int | None]) -> None:
    """The last line, for programs; None is what was not measured here."""
    print(json.dumps({key: _rounded(value) if isinstance(value, float) else value for key, value in figures.items()}))


def _rounded(value: float) -> float:
    """Four decimals, or three digits of what would vanish behind them."""
    return round(value, 4) if abs(value) >= 0.01 else float(f"{value:.3g}")
