"""Charts and shortcut maps as SVG text, for reports and machines without a browser. The pages' colours, light.

Each function gives a whole SVG document. Names and titles are escaped.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 34, 42
LEGEND_LINE = 18
INK, SOFT, LINE = "#1c2429", "#56636b", "#d5dade"
SERIES = (
    ("#0b63a5", ""),
    ("#a8480a", "7 3"),
    ("#1d6b43", "2 3"),
    ("#7a4fa3", "9 3 2 3"),
    ("#8a6d00", "12 4"),
    ("#4b5861", "4 2"),
)
HEAT = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
"""The colour scale of evidence, lowest to highest: matplotlib's inferno at six places."""
HEAT_OPACITY = 0.6
PANEL, GAP, HEAD = 224, 12, 56
Shape = Literal["line", "area", "dots"]


@dataclass(frozen=True)
class Series:
    """Points ``(x, y)`` in the order of x. ``area``: steps from each x to the next, the last point closing it."""

    name: str
    points: Sequence[tuple[float, float]]
    shape: Shape = "line"


@dataclass(frozen=True)
class Axes:
    """What stands at the axes, and their ends where they are fixed."""

    x_label: str
    y_label: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about ``count`` of them."""
    if high <= low:
        return [low - 0.5, low, low + 0.5]
    rough = (high - low) / (count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def chart(title: str, axes: Axes, series: Sequence[Series], *, guides: Sequence[tuple] = ()) -> str:
    """One chart of up to six series; ``guides`` are dashed lines ``(x1, y1, x2, y2)``. ValueError without a point."""
    shown = [one for one in series if one.points]
    if not shown:
        raise ValueError(f"{title}: there is nothing to draw yet.")
    xs, ys = ([point[axis] for one in shown for point in one.points] for axis in (0, 1))
    y_ticks = nice_ticks(*(axes.y_range or (min(ys), max(ys))))
    x_low, x_high = axes.x_range or (min(xs), max(xs))
    place = _Places(x_low, x_high, y_ticks[0], y_ticks[-1])
    parts = [_text(LEFT, 18, title, size=14, weight=600, anchor="start", colour=INK)]
    for value in y_ticks:
        parts += [_line(LEFT, place.y(value), WIDTH - RIGHT, place.y(value), LINE)]
        parts += [_text(LEFT - 7, place.y(value) + 4, f"{value:.4g}", anchor="end")]
    for value in (tick for tick in nice_ticks(x_low, x_high, 6) if x_low <= tick <= x_high):
        parts.append(_text(place.x(value), HEIGHT - BOTTOM + 17, f"{value:.4g}"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, axes.x_label, colour=INK))
    parts.append(_text(12, middle, axes.y_label, colour=INK, turn=True))
    parts += [_line(place.x(a), place.y(b), place.x(c), place.y(d), SOFT, "5 4") for a, b, c, d in guides]
    for number, one in enumerate(shown):
        colour, dashes = SERIES[number % len(SERIES)]
        parts.append(_drawn(one, place, colour, dashes))
        y = HEIGHT + LEGEND_LINE * number + 8
        parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(LEFT + 16, y, one.name, anchor="start", colour=INK))
    return _document(WIDTH, HEIGHT + LEGEND_LINE * len(shown), title, parts)


def heat_colour(share: float) -> str:
    """The colour of evidence at ``share`` 0 to 1 of the scale, as ``#rrggbb``."""
    at = min(max(share, 0.0), 1.0) * (len(HEAT) - 1)
    low = min(int(at), len(HEAT) - 2)
    mixed = (round(a + (b - a) * (at - low)) for a, b in zip(HEAT[low], HEAT[low + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def shortcut_figure(made: dict, image_png: bytes) -> str:
    """A shortcut map as :func:`ospcoop.figures.shortcuts.map_candidate` tells it, over the candidate's PNG."""
    panels = made["panels"]
    width = GAP + (len(panels) + 1) * (PANEL + GAP)
    height = HEAD + PANEL + 88
    picture = "data:image/png;base64," + base64.b64encode(image_png).decode()
    title = f"Candidate {made['candidate']}: evidence for {made['class_name']}"
    parts = [_text(GAP, 22, title, size=14, weight=600, anchor="start", colour=INK), _picture(GAP, picture)]
    parts.append(_text(GAP, HEAD - 8, f"background; {made['source_class']} was removed", anchor="start"))
    for number, panel in enumerate(panels):
        parts.append(_panel(panel, GAP + (number + 1) * (PANEL + GAP), picture, made["highest"]))
    stops = "".join(
        f'<stop offset="{step / (len(HEAT) - 1)}" stop-color="{heat_colour(step / (len(HEAT) - 1))}"/>'
        for step in range(len(HEAT))
    )
    y = height - 28
    parts.append(f'<defs><linearGradient id="heat">{stops}</linearGradient></defs>')
    parts.append(f'<rect x="{GAP}" y="{y}" width="{PANEL}" height="10" fill="url(#heat)"/>')
    parts.append(_text(GAP, y + 24, "0", anchor="start"))
    parts.append(_text(GAP + PANEL, y + 24, f"{made['highest']:.3g}", anchor="end"))
    parts.append(_text(GAP + PANEL / 2, y + 24, "probability at a patch"))
    return _document(width, height, title, parts)


def _panel(panel: dict, left: float, picture: str, highest: float) -> str:
    rows = panel["evidence"]
    high, wide = PANEL / len(rows), PANEL / len(rows[0])
    parts = [_text(left, HEAD - 8, panel["name"], anchor="start", colour=INK, weight=600), _picture(left, picture)]
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            colour = heat_colour(value / highest if highest else 0.0)
            place = f'x="{left + column * wide:.2f}" y="{HEAD + row * high:.2f}" width="{wide:.2f}" height="{high:.2f}"'
            parts.append(f'<rect {place} fill="{colour}" fill-opacity="{HEAT_OPACITY}"/>')
    for patch in panel["top"]:
        row, column = divmod(patch, len(rows[0]))
        place = f'x="{left + column * wide:.2f}" y="{HEAD + row * high:.2f}" width="{wide:.2f}" height="{high:.2f}"'
        parts.append(f'<rect {place} fill="none" stroke="#ffffff" stroke-width="1.5"/>')
    said = (
        f"whole image: {panel['probability']:.1%}",
        f"taken for {panel['predicted']}, {panel['predicted_probability']:.1%}",
    )
    parts += [_text(left, HEAD + PANEL + 16 * (line + 1), words, anchor="start") for line, words in enumerate(said)]
    return "".join(parts)


def _picture(left: float, picture: str) -> str:
    return (
        f'<image href="{picture}" x="{left}" y="{HEAD}" width="{PANEL}" height="{PANEL}" preserveAspectRatio="none"/>'
    )


@dataclass(frozen=True)
class _Places:
    """Where values lie on the canvas."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = 0.5 if self.x_high == self.x_low else (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y_low) / (self.y_high - self.y_low)


def _drawn(one: Series, place: _Places, colour: str, dashes: str) -> str:
    points = [(place.x(x), place.y(y)) for x, y in one.points]
    if one.shape == "dots" or len(points) == 1:
        return "".join(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="4" fill="{colour}"/>' for x, y in points)
    stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes or "none"}"'
    if one.shape == "line":
        way = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        return f'<polyline fill="none" {stroke} points="{way}"/>'
    floor = f"{place.y(0):.2f}"
    steps = "".join(f"V{top:.2f}H{points[at + 1][0]:.2f}" for at, (_, top) in enumerate(points[:-1]))
    return f'<path fill="{colour}" fill-opacity="0.22" {stroke} d="M{points[0][0]:.2f},{floor}{steps}V{floor}Z"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "none") -> str:
    ends = f'x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"'
    return f'<line {ends} stroke="{colour}" stroke-dasharray="{dashes}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: int = 400,
    anchor: str = "middle",
    colour: str = SOFT,
    turn: bool = False,
) -> str:
    look = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    turned = f' transform="rotate(-90 {x} {y:.2f})"' if turn else ""
    return f'<text x="{x:.2f}" y="{y:.2f}" {look}{turned}>{escape(words)}</text>'


def _document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" role="img"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )
