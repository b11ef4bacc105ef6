"""``docs/performance.md`` and its charts, made of a run's results."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks import tables
from benchmarks.charts import Bar, Panel, chart
from benchmarks.figures import middle
from benchmarks.plan import GRAMKEEP
from benchmarks.results import OpenLoop, Results
from benchmarks.tables import TITLES

TEXTS: Final = Path(__file__).with_name("texts")
UPDATES: Final = "assets/performance-updates.svg"
LATENCIES: Final = "assets/performance-latencies.svg"


def write(results: Results, docs: Path) -> None:
    """Write the page and its charts into a folder of documentation."""
    files = {
        "performance.md": page(results),
        UPDATES: chart("Updates a second", updates_chart(results)),
        LATENCIES: chart("Latencies", latencies_chart(results)),
    }
    for name, text in files.items():
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(text, "utf-8")


def page(results: Results) -> str:
    """Give the page's text: what is written by hand in `TEXTS`, and tables between."""
    parts = [
        text("beginning"),
        tables.run(results),
        "## The bar",
        text("bar"),
        tables.bar(results),
        "## Updates a second",
        f"![Updates a second of gramkeep and its peers]({UPDATES})",
        text("updates"),
        tables.updates(results),
        tables.missing(results),
        "## Latency at fixed rates",
        f"![Latencies of gramkeep and its peers]({LATENCIES})",
        text("latencies"),
        tables.latencies(results),
        "## Large sessions",
        text("large"),
        tables.large(results),
        "## Memory",
        text("memory"),
        tables.memory(results),
        "## The event loop",
        text("stalls"),
        tables.stalls(results),
        "## Where an update's time goes",
        text("where_time_goes"),
        tables.cpu(results),
        "## How it was measured",
        text("how_it_was_measured"),
        "## What it was measured on",
        tables.versions(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(name: str) -> str:
    """Give what was written by hand."""
    return (TEXTS / f"{name}.md").read_text("utf-8").strip()


def updates_chart(results: Results) -> list[Panel]:
    """Compare all contenders where most is to be done at once."""
    level = max(results.levels, default=0)
    panels = []
    for family, title in TITLES.items():
        found = (results.loop(family, one.name, level) for one in results.contenders)
        loops = [loop for loop in found if loop is not None]
        rates = {loop.name: middle(loop, "rate") for loop in loops}
        bars = [Bar(name, rate, f"{rate:,.0f}", _is_ours(name)) for name, rate in rates.items()]
        if len(bars) > 1:
            panels.append(Panel(f"{title}: updates a second, {level} at once", bars))
    return panels


def latencies_chart(results: Results) -> list[Panel]:
    """Compare contenders at the highest rate that all of them could keep up with."""
    panels = []
    for family, title in TITLES.items():
        by_rate: dict[int, list[OpenLoop]] = {}
        for loop in results.arrivals:
            if loop.family == family:
                by_rate.setdefault(loop.rate, []).append(loop)
        kept_up = [rate for rate, loops in by_rate.items() if not any(x.refused for x in loops)]
        if not kept_up:
            continue
        rate = max(kept_up)
        bars = [
            Bar(loop.name, loop.p99, f"{loop.p99:.1f} ms", _is_ours(loop.name))
            for loop in by_rate[rate]
        ]
        panels.append(Panel(f"{title}: p99 at {rate:,} updates a second", bars))
    return panels


def _is_ours(name: str) -> bool:
    return name.startswith(GRAMKEEP)
