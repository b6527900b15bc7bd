"""Plots as SVG, drawn by hand: a few bars and marks are not worth a plotting library. Pure."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks.stats import Spread, short

_WIDTH, _LEFT, _RIGHT, _TOP = 960, 390, 90, 48
_COLOURS = ("#d9480f", "#f4a261", "#495057", "#1971c2", "#2f9e44", "#9c36b5", "#adb5bd")
_FONT = 'font-family="system-ui, sans-serif"'


class Scale:
    """From values to places between `_LEFT` and the right margin."""

    def __init__(self, low: float, high: float, *, logarithmic: bool) -> None:
        self._logarithmic = logarithmic
        self._low, self._high = self._at(low), self._at(high)

    def __call__(self, value: float) -> float:
        share = (self._at(value) - self._low) / ((self._high - self._low) or 1.0)
        return _LEFT + min(1.0, max(0.0, share)) * (_WIDTH - _LEFT - _RIGHT)

    def _at(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self._logarithmic else value


def bars(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, Spread]]]], *, logarithmic: bool) -> str:
    """Horizontal bars in groups, with a line from the least to the most of the rounds."""
    names = list(dict.fromkeys(name for _, group in groups for name, _ in group))
    values = [spread for _, group in groups for _, spread in group]
    if not values:
        return _document(title, [], _TOP)
    low = 10 ** math.floor(math.log10(min(value.low for value in values))) if logarithmic else 0.0
    scale = Scale(low, max(value.high for value in values), logarithmic=logarithmic)
    marks, y = _legend(names), _TOP + 22 * ((len(names) + 2) // 3)
    for label, group in groups:
        middle = y + 7 * len(group)
        marks.append(_label(_LEFT - 10, middle + 4, label, anchor="end"))
        for name, value in group:
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            end = scale(value.middle)
            marks.append(f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="12" fill="{colour}"/>')
            marks.append(_line(scale(value.low), y + 6, scale(value.high), y + 6, "#000"))
            marks.append(_label(max(end, scale(value.high)) + 5, y + 10, short(value.middle), size=10))
            y += 14
        y += 12
    return _document(title, marks, y)


def ratios(title: str, rows: Sequence[tuple[str, str, Spread, float | None]]) -> str:
    """A point with its spread for each ratio, on a logarithmic scale; a bar where the target is."""
    values = [value for _, _, spread, goal in rows for value in (spread.low, spread.high, goal or 1.0)]
    if not values:
        return _document(title, [], _TOP)
    scale = Scale(min(0.8, *values) / 1.1, max(2.0, *values) * 1.1, logarithmic=True)
    bottom = _TOP + 34 * len(rows)
    marks = []
    for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        if _LEFT < scale(tick) < _WIDTH - _RIGHT:
            marks.append(_line(scale(tick), _TOP - 6, scale(tick), bottom, "#868e96" if tick == 1 else "#dee2e6"))
            marks.append(_label(scale(tick), _TOP - 9, f"{tick:g}×", anchor="middle", size=10))
    for number, (label, peer, spread, goal) in enumerate(rows):
        y = _TOP + 34 * number + 16
        good = goal is None or spread.middle >= goal
        colour = "#495057" if goal is None else "#2f9e44" if good else "#e03131"
        marks.append(_label(_LEFT - 10, y - 2, label, anchor="end"))
        marks.append(_label(_LEFT - 10, y + 11, f"beside {peer}", anchor="end", size=10, colour="#868e96"))
        marks.append(_line(scale(spread.low), y, scale(spread.high), y, colour, width=3))
        marks.append(f'<circle cx="{scale(spread.middle):.1f}" cy="{y}" r="5" fill="{colour}"/>')
        if goal is not None:
            marks.append(_line(scale(goal), y - 9, scale(goal), y + 9, "#000", width=2))
        marks.append(_label(_WIDTH - _RIGHT + 10, y + 4, f"{short(spread.middle)}×", size=12))
    return _document(title, marks, bottom)


def _legend(names: Sequence[str]) -> list[str]:
    marks = []
    for number, name in enumerate(names):
        x, y = 20 + 290 * (number % 3), _TOP + 18 * (number // 3) - 14
        marks.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        marks.append(_label(x + 18, y + 10, name))
    return marks


def _document(title: str, marks: Sequence[str], height: int) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height + 16}" {_FONT}>'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, ground, _label(20, 22, title, size=15), *marks, "</svg>"]) + "\n"


def _label(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#212529") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
