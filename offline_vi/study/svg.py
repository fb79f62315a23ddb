"""Small plots as SVG text whose colors are CSS classes, so that a page can show them light and dark, print and zoom.

Series k is drawn in the classes ``s0`` to ``s9``; everything else in ``axis``, ``grid``, ``label``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

COLORS = 10
Point = tuple[float, float]


class Line(NamedTuple):
    """A curve with its band."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    color: int  # which series
    dots: bool = False


class Bar(NamedTuple):
    """An estimate with its interval."""

    label: str
    value: float
    low: float
    high: float
    color: int


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two bounds."""
    span = max(high - low, 1e-9)
    raw = span / count
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """50000 -> 50k."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def curves(
    lines: Iterable[Line],
    x_label: str,
    y_label: str,
    *,
    size: tuple[int, int] = (460, 280),
    y_range: tuple[float, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Lines with bands; ``levels`` are horizontal lines, under their names."""
    lines, levels = list(lines), levels or {}
    left, right, top, bottom = 46, 10, 10, 38
    xs = [value for line in lines for value in line.x]
    ys = [value for line in lines for part in (line.y, line.low, line.high) for value in part if math.isfinite(value)]
    ys += levels.values()
    x0, x1 = min(0.0, *xs), max(1.0, *xs)
    y0, y1 = y_range or (min(0.0, *ys), max(ys))
    y1 = y1 if y1 > y0 else y0 + 1.0
    width, height = size

    def at(x: float, y: float) -> Point:
        y = min(max(y, y0), y1)
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom),
        )

    body = []
    for tick in ticks(y0, y1):
        _, y = at(x0, tick)
        body.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(_text(left - 6, y + 3.5, short(tick), "end"))
    for tick in ticks(x0, x1):
        x, y = at(tick, y0)
        body.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 4:.1f}"/>')
        body.append(_text(x, y + 15, short(tick), "middle"))
    body.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{height - bottom}" y2="{height - bottom}"/>')
    for name, value in levels.items():
        _, y = at(x0, value)
        body.append(f'<line class="level" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(_text(width - right, y - 4, name, "end"))
    for line in lines:
        around = [at(x, y) for x, y in zip(line.x, line.high, strict=True)]
        around += [at(x, y) for x, y in reversed(list(zip(line.x, line.low, strict=True)))]
        body.append(f'<polygon class="band s{line.color % COLORS}" points="{_points(around)}"/>')
    for line in lines:
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        body.append(f'<polyline class="line s{line.color % COLORS}" points="{_points(points)}"/>')
        if line.dots:
            body += [
                f'<circle class="dot s{line.color % COLORS}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points
            ]
    body.append(_text((left + width) / 2, height - 6, x_label, "middle"))
    body.append(
        f'<text class="label" transform="translate(11 {(height - bottom) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    return _svg(width, height, body, f"{y_label} over {x_label}")


def intervals(bars: Sequence[Bar], x_label: str, *, width: int = 520, row: int = 24) -> str:
    """A dot with its interval for each row."""
    left, right, bottom = 12 + 7 * max(len(bar.label) for bar in bars), 56, 36
    height = row * len(bars) + bottom + 6
    values = [value for bar in bars for value in (bar.value, bar.low, bar.high)]
    x0, x1 = min(0.0, *values), max(*values, 1.0)

    def at(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (width - left - right)

    body = []
    for tick in ticks(x0, x1, 6):
        x = at(tick)
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - bottom}"/>')
        body.append(_text(x, height - bottom + 14, short(tick), "middle"))
    for number, bar in enumerate(bars):
        y, color = 6 + row * (number + 0.5), f"s{bar.color % COLORS}"
        body.append(_text(left - 8, y + 4, bar.label, "end"))
        low, high = at(bar.low), at(bar.high)
        body.append(f'<line class="whisker {color}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<circle class="dot {color}" cx="{at(bar.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        body.append(_text(max(high, at(bar.value)) + 9, y + 4, f"{bar.value:.1f}", "start"))
    body.append(_text((left + width - right) / 2, height - 4, x_label, "middle"))
    return _svg(width, height, body, x_label)


def legend(names: Mapping[str, int]) -> str:
    """HTML: a swatch for each series."""
    rows = [
        f'<span class="key"><i class="s{color % COLORS}"></i>{escape(name)}</span>' for name, color in names.items()
    ]
    return f'<p class="legend">{"".join(rows)}</p>'


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, body: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width}px">{"".join(body)}</svg>'
    )
