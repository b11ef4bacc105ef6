"""Bar charts as SVG, in colours that can be read on light and on dark pages alike."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

TEXT: Final = "#7c858e"  # as far from white as from black
OURS: Final = "#3b82d6"
THEIRS: Final = "#9aa3ab"
WIDTH: Final = 760
NAMES: Final = 230  # of the width
FIGURES: Final = 150
BAR: Final = 16
STEP: Final = 22
HEAD: Final = 30  # above the bars of a panel


class Bar(NamedTuple):
    """One bar: as long as ``value``, with ``figure`` beside it."""

    name: str
    value: float
    figure: str
    is_ours: bool


class Panel(NamedTuple):
    """Bars that share a scale, under a title."""

    title: str
    bars: Sequence[Bar]


def chart(title: str, panels: Sequence[Panel]) -> str:
    """Draw panels one below the other; ``title`` is for those who can't see them."""
    y = 0
    drawn = []
    for panel in panels:
        drawn.append(_text(0, y + 20, panel.title, weight="bold"))
        y += HEAD
        longest = max((bar.value for bar in panel.bars), default=0) or 1
        for bar in panel.bars:
            length = max(round((WIDTH - NAMES - FIGURES) * bar.value / longest, 1), 1)
            colour = OURS if bar.is_ours else THEIRS
            drawn += [
                _text(NAMES - 8, y + 13, bar.name, anchor="end"),
                f'<rect x="{NAMES}" y="{y}" width="{length}" height="{BAR}" fill="{colour}"/>',
                _text(NAMES + length + 8, y + 13, bar.figure),
            ]
            y += STEP
        y += 12
    style = f'font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" {style}>'
    return "\n".join([head, f"<title>{escape(title)}</title>", *drawn, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(text)}</text>"
