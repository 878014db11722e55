"""The histogram of the drop as inline SVG: readable in light and dark, and described for screen readers."""

from __future__ import annotations

from app.pages.shared import escape
from exports.builds import Histogram

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 44
TICKS = 8
# Bins between two labels; the last serves any number of them that exports.builds makes.
TICK_STEPS = (1, 2, 4, 5, 10)


def drop_histogram(histogram: Histogram, threshold: float | None) -> str:
    """Bars for all candidates with the members' part filled, and the threshold as a line."""
    edges, highest = histogram.edges, max(histogram.all, default=0)
    if not highest:
        return ""
    low, high = edges[0], edges[-1]
    span = high - low
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + plot_width * (value - low) / span

    def bar(index: int, count: int, kind: str) -> str:
        height = plot_height * count / highest
        left, right = x(edges[index]), x(edges[index + 1])
        return (
            f'<rect class="{kind}" x="{left + 0.5:.1f}" y="{TOP + plot_height - height:.1f}" '
            f'width="{max(right - left - 1, 0.5):.1f}" height="{height:.1f}"/>'
        )

    parts = [bar(index, count, "bar-all") for index, count in enumerate(histogram.all)]
    parts += [bar(index, count, "bar-members") for index, count in enumerate(histogram.members)]
    base = TOP + plot_height
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>')
    step = next(step for step in TICK_STEPS if len(edges) - 1 <= step * TICKS)
    for edge in edges[::step]:
        parts.append(f'<line class="axis" x1="{x(edge):.1f}" y1="{base}" x2="{x(edge):.1f}" y2="{base + 4}"/>')
        parts.append(f'<text x="{x(edge):.1f}" y="{base + 18}" text-anchor="middle">{edge:g}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP + 5}" text-anchor="end">{highest:,}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{base + 4}" text-anchor="end">0</text>')
    middle = LEFT + plot_width / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">drop (logits of the true class)</text>')
    where = ""
    if threshold is not None:
        where = f" The threshold is at {threshold:g}."
        if low <= threshold <= high:
            place = x(threshold)
            anchor, shift = ("end", -6) if place > WIDTH * 0.7 else ("start", 6)
            parts.append(
                f'<line class="threshold" x1="{place:.1f}" y1="{TOP - 16}" x2="{place:.1f}" y2="{base}"/>'
                f'<text class="threshold-text" x="{place + shift:.1f}" y="{TOP - 8}" text-anchor="{anchor}">'
                f"threshold {threshold:g}</text>"
            )
    description = (
        f"{sum(histogram.members):,} members among {sum(histogram.all):,} candidates; "
        f"drops from {low:g} to {high:g}, at most {highest:,} candidates in one bar.{where}"
    )
    return (
        f'<figure class="histogram"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="histogram-title histogram-text"><title id="histogram-title">How the drop is spread</title>'
        f'<desc id="histogram-text">{escape(description)}</desc>{"".join(parts)}</svg>'
        '<figcaption><span class="key members" aria-hidden="true"></span>in the build'
        '<span class="key all" aria-hidden="true"></span>left out</figcaption></figure>'
    )
