"""Measure what an update costs, and write down what was found.

``python -m benchmarks`` and ``python -m benchmarks full`` make the page of the documentation, as
does ``make bench``; other plans only show figures. ``python -m benchmarks page`` makes the page
of results that are there.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from benchmarks import node, page
from benchmarks.bar import cells
from benchmarks.plan import FAMILIES, GRAMKEEP, PLANS, ROWS
from benchmarks.results import LATEST, read
from benchmarks.run import Run

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = "page"
BEGUN: Final = time.monotonic()


def show(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)  # noqa: T201


def stop_once() -> None:
    """Have signals stop what runs, and further ones not interrupt the tidying up."""

    def stop(*_: object) -> NoReturn:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, stop)


def main() -> int:
    """Do what the command line says, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=[*PLANS, PAGE], default="full")
    parser.add_argument("--only", default=",".join(FAMILIES), help="some of %(default)s")
    parser.add_argument("--results", type=Path, help="where the results are, or go to")
    parser.add_argument("--docs", type=Path, help="the documentation to write the page into")
    parser.add_argument(
        "--no-install",
        dest="install",
        action="store_false",
        help="measure no peers that would have to be installed",
    )
    asked = parser.parse_args()
    only = asked.only.split(",")
    if unknown := set(only) - set(FAMILIES):
        parser.error(f"--only {', '.join(sorted(unknown))}: none of {', '.join(FAMILIES)}")

    is_whole = asked.what in ("full", PAGE) and len(only) == len(FAMILIES)
    results = asked.results or (
        LATEST if is_whole else ROOT / f"build/benchmarks/{asked.what}.json"
    )
    docs = asked.docs or (ROOT / "docs" if is_whole and asked.results is None else None)
    if asked.what == PAGE:
        found = read(results)
    else:
        stop_once()
        rows = [row for row in ROWS if row.family in only]
        if asked.install and any(row.runtime.startswith("node") for row in rows):
            show("npm installs the peers, if they aren't there")
            try:
                node.prepare()
            except node.NoNode as error:
                parser.error(f"{error}; --no-install does without")
        found = Run(PLANS[asked.what], rows, show).measure()
        for cell in cells(found):
            show(f"{cell.family:>9} {cell.level or '':>4} {cell.wanted}: {cell.found}")
        found.write(results)
        show(f"the results are in {results}")
    if docs is not None:
        page.write(found, docs)
        show(f"the page is in {docs}")
    failed = [one for one in found.contenders if one.reason and one.name.startswith(GRAMKEEP)]
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        show("stopped")
        sys.exit(130)
