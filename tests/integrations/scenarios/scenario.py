"""What a scenario is: a sentence that holds for every framework, and the proof."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from integrations.drivers.base import Driver
from integrations.drivers.handlers import Turn

Play: TypeAlias = Callable[[Driver], Awaitable[None]]


@dataclass
class Counter:
    """The session of most scenarios."""

    count: int = 0
    seen: list[str] = field(default_factory=list)


async def count(turn: Turn) -> None:
    """Count up slowly enough for somebody else to come in between, and answer with the count."""
    before = turn.session.count
    await turn.pause()
    turn.session.count = before + 1
    turn.session.seen.append(turn.text)
    await turn.answer(str(before + 1))


class OnPurpose(Exception):
    """What failing handlers raise."""


@dataclass(frozen=True)
class Scenario:
    """``sentence`` and ``section`` are for the table, ``name`` for tests and drivers."""

    play: Play

    @property
    def name(self) -> str:
        return self.play.__name__

    @property
    def sentence(self) -> str:
        return _first_line(self.play)

    @property
    def section(self) -> str:
        return _first_line(sys.modules[self.play.__module__])


SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Play) -> Play:
    """Add a function to the scenarios; the first line of its docstring is its sentence."""
    made = Scenario(play)
    assert made.name not in SCENARIOS, made.name
    SCENARIOS[made.name] = made
    return play


def _first_line(documented: object) -> str:
    assert documented.__doc__, f"{documented} needs a docstring"
    return documented.__doc__.partition("\n")[0].rstrip(".")
