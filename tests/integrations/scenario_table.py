"""Writes ``docs/integrations/scenarios.md`` of what a run of the scenarios has shown.

``make scenarios`` runs this. Tests compare the page with the scenarios and drivers that there are.
"""

import sys
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from integrations.all_drivers import DRIVERS
from integrations.scenarios import SCENARIOS

PAGE = Path(__file__).parents[2] / "docs/integrations/scenarios.md"

CELL = "cell"
"""The property by which a test says what it is of: the framework, and the scenario's name."""

ABOVE = """\
# Scenarios

What every integration is tested for, in the same words. A tick stands for a test that passed: a \
real bot of that framework was built, updates came to it, and the sessions were looked at \
afterwards. Bots of the Bot API poll a [local server](../testing.md) over HTTP. \
Bots of MTProto frameworks are given raw updates, as their clients would get them.

This page is written by `make scenarios`, and a test fails when it is out of date.
"""

NOTHING_MISSING = "All scenarios are possible with all frameworks."

MISSING = """\
Some scenarios can't exist with a framework:

| framework | scenario | why not |
|---|---|---|
"""


class Passed:
    """A plugin of pytest's that notes which cells passed; also those that workers ran."""

    def __init__(self) -> None:
        self.cells: set[tuple[str, str]] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if report.when == "call" and report.passed and CELL in properties:
            framework, name = properties[CELL]
            self.cells.add((framework, name))


def page(passed: Collection[tuple[str, str]]) -> str:
    """Give the page's text for the cells that passed."""
    return "\n".join([ABOVE, *_tables(passed), "## What can't be\n", _missing()])


def _tables(passed: Collection[tuple[str, str]]) -> Iterator[str]:
    for section, scenarios in groupby(SCENARIOS.values(), key=lambda scenario: scenario.section):
        yield f"## {section}\n"
        yield f"| | {' | '.join(DRIVERS)} |\n|---|{':-:|' * len(DRIVERS)}"
        for scenario in scenarios:
            cells = [_cell(framework, scenario.name, passed) for framework in DRIVERS]
            yield f"| {scenario.sentence} | {' | '.join(cells)} |"
        yield ""


def _cell(framework: str, name: str, passed: Collection[tuple[str, str]]) -> str:
    if name in DRIVERS[framework].missing:
        return "—"
    return "✓" if (framework, name) in passed else "**fails**"


def _missing() -> str:
    rows = [
        f"| {framework} | {scenario.sentence} | {driver.missing[scenario.name]} |\n"
        for framework, driver in DRIVERS.items()
        for scenario in SCENARIOS.values()
        if scenario.name in driver.missing
    ]
    return MISSING + "".join(rows) if rows else f"{NOTHING_MISSING}\n"


def main() -> int:
    """Run all scenarios, write the page, and give pytest's exit code."""
    passed = Passed()
    tests = Path(__file__).with_name("test_scenarios.py")
    code = pytest.main([str(tests), "-q", "-k", "test_a_scenario_holds"], plugins=[passed])
    PAGE.write_text(page(passed.cells), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
