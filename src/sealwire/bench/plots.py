"""Plots as SVG, by hand: bars with intervals, and the distribution of a latency.

No script, no font file, no network: the page they stand in is one file.  Colours differ in lightness
too, so they can be told apart without seeing colours, and every bar has its number beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sealwire.bench.tables import number

_WIDTH = 860
_LABEL = 290
_BAR = 15
_GAP = 5
_HEAD = 26
_NUMBER = 150
_COLOURS = ("#0b5fa5", "#e08a00", "#5aa469", "#9a3b3b", "#7a68a6", "#6b6b6b", "#c2577e", "#2b8f8f")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its interval; `colour` counts from 0."""

    label: str
    value: float
    low: float
    high: float
    colour: int


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together; a mark shows the promised value, NaN where nothing was promised."""

    title: str
    bars: tuple[Bar, ...]
    promised: float = math.nan


def colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def bars(title: str, unit: str, groups: Sequence[Group], *, shared: bool = True) -> str:
    """Horizontal bars in groups, to one scale; to a scale of each group's own unless `shared`."""
    lines: list[str] = []
    widest = max(_most(group) for group in groups)
    y = _HEAD
    for group in groups:
        most = widest if shared else _most(group)
        scale = (_WIDTH - _LABEL - _NUMBER) / most
        y += 6
        lines.append(_text(0, y + 12, group.title, weight="600"))
        y += 18
        top = y
        for bar in group.bars:
            width = max(1.0, bar.value * scale)
            lines.append(_text(_LABEL - 8, y + 12, bar.label, anchor="end"))
            lines.append(_rect(_LABEL, y, width, _BAR, colour(bar.colour)))
            if bar.high > bar.low:
                ends = _LABEL + bar.low * scale, _LABEL + bar.high * scale
                lines.append(_line(ends[0], y + _BAR / 2, ends[1], y + _BAR / 2, "#111", 1.5))
            end = _LABEL + max(width, bar.high * scale)
            lines.append(_text(end + 6, y + 12, f"{number(bar.value)} {unit}"))
            y += _BAR + _GAP
        if not math.isnan(group.promised) and group.promised <= most:
            x = _LABEL + group.promised * scale
            lines.append(_line(x, top - 3, x, y, "#c00", 2))
            # Further left the word would lie on the group's title.
            if x > _LABEL + 120:
                lines.append(_text(x + 3, top - 5, "promised", fill="#c00", size=11))
    return _svg(title, y + 4, lines)


def _most(group: Group) -> float:
    return max(max(bar.high, bar.value) for bar in group.bars) or 1.0


def magnitudes(title: str, unit: str, groups: Sequence[Group]) -> str:
    """One bar a row on a logarithmic scale, where rows differ by orders of magnitude; promises marked."""
    values = [group.bars[0].value for group in groups]
    values += [group.promised for group in groups if not math.isnan(group.promised)]
    low = math.floor(math.log10(min((value for value in values if value > 0), default=1.0)))
    high = max(math.ceil(math.log10(max(*values, 10.0**low))), low + 1)
    left = 360
    width = _WIDTH - left - 110

    def place(value: float) -> float:
        return left + (math.log10(max(value, 10.0**low)) - low) / (high - low) * width

    bottom = _HEAD + 8 + len(groups) * (_BAR + _GAP)
    lines = []
    for power in range(low, high + 1):
        x = place(10.0**power)
        lines.append(_line(x, _HEAD, x, bottom, "#ddd", 1))
        lines.append(_text(x, bottom + 14, f"{number(10.0**power)} {unit}", anchor="middle", size=11))
    y = _HEAD + 6
    for group in groups:
        (bar, *_) = group.bars
        lines.append(_text(left - 8, y + 12, group.title, anchor="end"))
        lines.append(_rect(left, y, max(1.0, place(bar.value) - left), _BAR, colour(bar.colour)))
        lines.append(_text(place(bar.value) + 6, y + 12, number(bar.value)))
        if not math.isnan(group.promised):
            x = place(group.promised)
            lines.append(_line(x, y - 2, x, y + _BAR + 2, "#c00", 2))
        y += _BAR + _GAP
    if any(not math.isnan(group.promised) for group in groups):
        lines.append(_text(_WIDTH, 14, "red: promised", anchor="end", fill="#c00", size=11))
    return _svg(title, bottom + 20, lines)


def distribution(title: str, unit: str, curves: Mapping[str, Mapping[str, float]]) -> str:
    """Cumulative distributions from quantiles; the axis of latency is logarithmic."""
    left, right, top, bottom, height = 50, 230, 30, 40, 300
    points = {
        name: sorted((float(percent), value) for percent, value in quantiles.items() if value > 0)
        for name, quantiles in curves.items()
    }
    values = [value for curve in points.values() for _, value in curve]
    low, high = math.log10(min(values)), math.log10(max(values))
    span = max(high - low, 0.1)

    def place(percent: float, value: float) -> tuple[float, float]:
        x = left + (math.log10(value) - low) / span * (_WIDTH - left - right)
        return x, top + (100 - percent) / 100 * (height - top - bottom)

    lines = []
    for percent in (0, 25, 50, 75, 95, 100):
        y = place(percent, values[0])[1]
        lines.append(_line(left, y, _WIDTH - right, y, "#ddd", 1))
        lines.append(_text(left - 6, y + 4, f"{percent} %", anchor="end", size=11))
    for value in _ticks(10**low, 10**high):
        x = place(0, value)[0]
        lines.append(_line(x, top, x, height - bottom, "#ddd", 1))
        lines.append(_text(x, height - bottom + 16, number(value), anchor="middle", size=11))
    lines.append(_text((left + _WIDTH - right) / 2, height - 6, unit, anchor="middle", size=12))
    for index, (name, curve) in enumerate(points.items()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve))
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour(index)}" stroke-width="2"/>')
        y = top + 10 + index * 20
        lines.append(_rect(_WIDTH - right + 14, y, 14, 10, colour(index)))
        lines.append(_text(_WIDTH - right + 34, y + 10, name))
    return _svg(title, height, lines)


def trend(title: str, unit: str, values: Sequence[float]) -> str:
    """One figure over several results, oldest first, as a small line."""
    width, height = 220, 46
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = (width - 20) / max(1, len(values) - 1)
    points = " ".join(
        f"{10 + n * step:.1f},{height - 10 - (value - low) / span * (height - 20):.1f}"
        for n, value in enumerate(values)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}: {number(values[0])} to {number(values[-1])} {escape(unit)}</title>"
        f'<polyline points="{points}" fill="none" stroke="{colour(0)}" stroke-width="2"/></svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    ticks = []
    for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        ticks += [step * 10.0**power for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    return ticks


def _svg(title: str, height: float, lines: Sequence[str]) -> str:
    box = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="100%"'
    head = f'<svg {box} role="img" font-family="sans-serif" font-size="13">'
    caption = _text(0, 14, title, weight="700")
    return "\n".join([head, f"<title>{escape(title)}</title>", caption, *lines, "</svg>"])


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    weight: str = "400",
    fill: str = "#222",
    size: int = 13,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
        f' font-size="{size}">{escape(text)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"'
        f' stroke-width="{width:g}"/>'
    )
