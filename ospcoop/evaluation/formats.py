"""Result tables as CSV (fractions, with the intervals), Markdown and LaTeX (per cent, the best in bold). No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ospcoop.evaluation.tables import (
    CLASSIC_AVERAGE,
    COLUMNS,
    AverageRow,
    ResultRow,
    SeriesRow,
    classic_averages,
    over_seeds,
    sentences,
)
from ospcoop.metrics import Interval

HEADERS = ("OOD set", "detector", "prompts", "selection")
PAIRED_HEADERS = ("OOD set", "detector", "prompts", "pairs", "scored below its photo", "mean rise", "kept class")


@dataclass(frozen=True)
class Cell:
    """A table's cell as text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table; ``numbers`` is how many of its last columns hold numbers."""

    title: str
    headers: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    numbers: int


def percent(value: float) -> str:
    """Of a fraction, two decimals."""
    return f"{100 * value:.2f}"


def with_interval(one: Interval) -> str:
    """A fraction's value and interval in per cent."""
    return f"{percent(one.value)} [{percent(one.low)}, {percent(one.high)}]"


def tables(rows: Sequence[ResultRow], *, intervals: bool = False) -> list[Table]:
    """All tables of some results: one a pair of encoder and ID set, then averages, seeds and pairs where there are."""
    made = []
    places = dict.fromkeys((row.encoder, row.id_set) for row in rows)
    for encoder, id_set in places:
        mine = [row for row in rows if (row.encoder, row.id_set) == (encoder, id_set)]
        ours = f"{encoder}, ID set {id_set} ({mine[0].id_images} images, {mine[0].classes} classes)"
        lines = [_result(row, intervals) for row in mine] + [_average(one) for one in classic_averages(mine)]
        made.append(Table(f"{ours}, in per cent", (*HEADERS, *COLUMNS.values()), tuple(lines), len(COLUMNS)))
        seeds = tuple(_series(one) for one in over_seeds(mine))
        if seeds:
            headers = ("OOD set", "detector", "method", "seeds", *COLUMNS.values())
            made.append(Table(f"{ours}: mean ± deviation over seeds, in per cent", headers, seeds, len(COLUMNS)))
        pairs = tuple(_paired(row) for row in mine if row.paired is not None)
        if pairs:
            made.append(Table(f"{ours}: each background against its own photo", PAIRED_HEADERS, pairs, 4))
    return made


def _prompts(row: ResultRow | AverageRow) -> tuple[Cell, Cell]:
    return Cell(row.run), Cell(row.selection)


def _result(row: ResultRow, intervals: bool) -> tuple[Cell, ...]:
    shown: Callable[[Interval], str] = with_interval if intervals else lambda one: percent(one.value)
    numbers = (Cell(shown(row.metrics[name]), name in row.best) for name in COLUMNS)
    return (Cell(f"{row.ood_set} ({row.ood_images})"), Cell(row.detector), *_prompts(row), *numbers)


def _average(row: AverageRow) -> tuple[Cell, ...]:
    numbers = (Cell(percent(row.metrics[name]), name in row.best) for name in COLUMNS)
    return (Cell(CLASSIC_AVERAGE), Cell(row.detector), *_prompts(row), *numbers)


def _series(row: SeriesRow) -> tuple[Cell, ...]:
    seeds = ", ".join(str(seed) for seed in sorted(row.seeds))
    numbers = (Cell(f"{percent(row.mean[name])} ± {percent(row.spread[name])}") for name in COLUMNS)
    return (Cell(row.ood_set), Cell(row.detector), Cell(row.method), Cell(seeds), *numbers)


def _paired(row: ResultRow) -> tuple[Cell, ...]:
    pairs = row.paired
    rise = f"{pairs.mean.value:+.4f} [{pairs.mean.low:+.4f}, {pairs.mean.high:+.4f}]"
    numbers = (str(pairs.pairs), f"{with_interval(pairs.lower)} %", rise, f"{with_interval(pairs.kept_class)} %")
    return (Cell(row.ood_set), Cell(row.detector), Cell(row.run), *(Cell(one) for one in numbers))


def as_csv(rows: Sequence[ResultRow]) -> str:
    """A line a result, every number as a fraction to six decimals, with interval and hashes; ``best`` lists metrics."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    about = ("encoder", "grade", "id_set", "id_images", "ood_set", "group", "ood_images", "detector", "prompts")
    about += ("method", "seed", "epoch", "selection", "classes")
    numbers = [f"{name}{end}" for name in COLUMNS for end in ("", "_low", "_high")]
    pairs = [f"{name}{end}" for name in _PAIRED for end in ("", "_low", "_high")]
    writer.writerow([*about, *numbers, "pairs", *pairs, "best", "id_sha256", "ood_sha256"])
    for row in rows:
        line = [getattr(row, {"prompts": "run"}.get(name, name)) for name in about]
        line += [value for name in COLUMNS for value in _ends(row.metrics[name])]
        line += ["" if row.paired is None else row.paired.pairs]
        for name in _PAIRED:
            line += ["", "", ""] if row.paired is None else _ends(getattr(row.paired, name))
        best = " ".join(name for name in COLUMNS if name in row.best)
        writer.writerow(["" if value is None else value for value in (*line, best, row.id_sha256, row.ood_sha256)])
    return text.getvalue()


_PAIRED = ("lower", "mean", "median", "kept_class")


def _ends(one: Interval) -> list[str]:
    return [f"{value:.6f}" for value in (one.value, one.low, one.high)]


def as_markdown(rows: Sequence[ResultRow]) -> str:
    """GitHub's tables, the best in bold, the sentences below."""
    parts = []
    for table in tables(rows):
        words = len(table.headers) - table.numbers
        rule = ["---"] * words + ["---:"] * table.numbers
        lines = [table.headers, rule, *([_markdown(cell) for cell in line] for line in table.lines)]
        parts.append("\n".join([f"**{table.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join([*parts, *sentences(rows)]) + "\n"


def _markdown(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"**{text}**" if cell.best else text


def as_latex(rows: Sequence[ResultRow]) -> str:
    """``tabular`` environments (package booktabs), the best in bold, the sentences below."""
    parts = []
    for table in tables(rows):
        columns = "l" * (len(table.headers) - table.numbers) + "r" * table.numbers
        lines = [r" & ".join(_latex(cell) for cell in line) + r" \\" for line in table.lines]
        header = " & ".join(_escaped(one) for one in table.headers) + r" \\"
        body = [r"\begin{tabular}{" + columns + "}", r"\toprule", header, r"\midrule", *lines, r"\bottomrule"]
        parts.append("\n".join([f"% {table.title}", *body, r"\end{tabular}"]))
    return "\n\n".join([*parts, *(_escaped(one) for one in sentences(rows))]) + "\n"


def _latex(cell: Cell) -> str:
    text = _escaped(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)


FORMATS: dict[str, Callable[[Sequence[ResultRow]], str]] = {
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
}
