"""Tables of a run's results, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.bar import cells, ratio_text
from benchmarks.figures import growth, middle, ratio
from benchmarks.plan import GRAMKEEP
from benchmarks.results import ClosedLoop, Results

TITLES: Final = {
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "sqlite": "SQLite",
    "file": "Files",
    "memory": "Memory",
    "mysql": "MariaDB",
    "mongodb": "MongoDB",
}
NONE: Final = "—"
LARGE: Final = 100  # a figure without decimals


def run(results: Results) -> str:
    """Say which run it was."""
    return (
        f"The figures are of one run on {results.taken}, which took "
        f"{max(round(results.seconds / 60), 1)} minutes on {results.machine['processor']}."
    )


def bar(results: Results) -> str:
    """Show what was to be reached, and what was."""
    found = list(cells(results))
    rows = [
        (
            TITLES[cell.family],
            NONE if cell.level is None else str(cell.level),
            cell.wanted,
            cell.found,
            "✓" if cell.is_met else "**missed**",
        )
        for cell in found
    ]
    table = _table(("", "at once", "wanted", "found", ""), rows)
    return f"{sum(cell.is_met for cell in found)} of {len(found)} were reached.\n\n{table}"


def updates(results: Results) -> str:
    """Show every contender at every level, and gramkeep beside it."""
    levels = results.levels
    rows = []
    for one in results.contenders:
        own = [results.loop(one.family, one.name, level) for level in levels]
        ours = [results.loop(one.family, GRAMKEEP, level) for level in levels]
        pairs = zip(ours, own, strict=True)
        ratios = [_beside(a, b) if one.name != GRAMKEEP else "" for a, b in pairs]
        cpu = "" if own[-1] is None else _figure(middle(own[-1], "cpu"))
        rows.append((TITLES[one.family], _name(one.name), *map(_rate, own), cpu, *ratios))
    head = ("", "", *map(str, levels), "CPU", *(f"÷ at {level}" for level in levels))
    return _table(head, rows, figures=2)


def missing(results: Results) -> str:
    """Say who couldn't be measured, and why."""
    lines = [
        f"{one.name} with {TITLES[one.family]} {'failed' if one.versions else 'was not there'}: "
        f"{one.reason}."
        for one in results.contenders
        if one.reason
    ]
    return "\n\n".join(lines)


def latencies(results: Results) -> str:
    """Show p50, p99 and p99.9 at each rate."""
    rates = sorted({loop.rate for loop in results.arrivals})
    texts: dict[tuple[str, str], dict[int, str]] = {}
    for loop in results.arrivals:
        shown = " / ".join(_figure(one) for one in (loop.p50, loop.p99, loop.p999))
        of_contender = texts.setdefault((loop.family, loop.name), {})
        of_contender[loop.rate] = f"fell behind by {loop.refused:.0%}" if loop.refused else shown
    rows = [
        (TITLES[family], _name(name), *(found.get(rate, NONE) for rate in rates))
        for (family, name), found in texts.items()
    ]
    return _table(("", "", *(f"{rate:,} a second" for rate in rates)), rows, figures=2)


def large(results: Results) -> str:
    """Show updates a second with large sessions."""
    loops = [loop for loop in results.closed if loop.size != results.size]
    sizes = sorted({loop.size for loop in loops})
    rows = [
        (
            TITLES[family],
            _name(name),
            *(_rate(results.loop(family, name, loops[0].concurrency, size)) for size in sizes),
        )
        for family, name in dict.fromkeys((loop.family, loop.name) for loop in loops)
    ]
    return _table(("", "", *(f"{size / 1024:g} KB" for size in sizes)), rows, figures=2)


def memory(results: Results) -> str:
    """Show what different keys leave behind in the process."""
    rows = [
        (
            TITLES[one.family],
            _name(one.name),
            f"{one.keys[-1]:,}",
            f"{one.resident[0]:.0f} MB",
            f"{one.resident[-1]:.0f} MB",
            f"{growth(one):.0f} MB",
        )
        for one in results.memory
    ]
    head = ("", "", "keys", "at the first sample", "at the last", "a million keys more")
    return _table(head, rows, figures=2)


def stalls(results: Results) -> str:
    """Show how long the longest steps of the event loop were."""
    texts: dict[tuple[str, str], dict[int, str]] = {}
    for step in results.steps:
        texts.setdefault((step.family, step.name), {})[step.concurrency] = f"{step.longest:.1f}"
    rows = [
        (TITLES[family], _kind(name), *(found.get(level, NONE) for level in results.levels))
        for (family, name), found in texts.items()
    ]
    return _table(("", "", *(f"{level} at once" for level in results.levels)), rows, figures=2)


def cpu(results: Results) -> str:
    """Show what of the processor an update of gramkeep's takes."""

    def cell(loop: ClosedLoop | None) -> str:
        return NONE if loop is None else _figure(middle(loop, "cpu"))

    rows = [
        (
            TITLES[one.family],
            _kind(one.name),
            *(cell(results.loop(one.family, one.name, level)) for level in results.levels),
        )
        for one in results.contenders
        if one.name.startswith(GRAMKEEP)
    ]
    return _table(("", "", *(f"{level} at once" for level in results.levels)), rows, figures=2)


def versions(results: Results) -> str:
    """Show the machine, and the versions of everything."""
    found: dict[str, set[str]] = {}
    for one in results.contenders:
        of_npm = " of npm" if "node" in one.versions else ""
        for package, version in one.versions.items():
            name = package if package == "node" else f"{package}{of_npm}"
            found.setdefault(name, set()).add(version)
    rows = [*results.machine.items()]
    rows += [(package, ", ".join(sorted(of_package))) for package, of_package in found.items()]
    return _table(("", ""), rows)


def _beside(ours: ClosedLoop | None, peer: ClosedLoop | None) -> str:
    return NONE if ours is None or peer is None else ratio_text(ratio(ours, peer))


def _rate(loop: ClosedLoop | None) -> str:
    return NONE if loop is None else f"{middle(loop, 'rate'):,.0f}"


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= LARGE else f"{number:.3g}"


def _kind(name: str) -> str:
    return name.removeprefix(GRAMKEEP).removeprefix(", ")


def _name(name: str) -> str:
    return f"**{name}**" if name.startswith(GRAMKEEP) else name


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, figures: int | None = None
) -> str:
    """Lay a table out; columns from number ``figures`` on stand to the right."""
    words = len(head) if figures is None else figures
    rule = ["---"] * words + ["--:"] * (len(head) - words)
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
