"""What is measured: which contenders, under which loads, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

GRAMKEEP: Final = "gramkeep"

Runtime = Literal["asyncio", "uvloop", "node", "node-with-sqlite"]


@dataclass(frozen=True)
class Row:
    """One contender with one kind of storage. ``place`` is what kind of URL it is given."""

    family: str
    name: str
    runtime: Runtime
    contender: str
    place: str
    further: bool = False
    """Whether it is also measured at fixed rates and with large sessions."""

    @property
    def is_ours(self) -> bool:
        return self.contender == GRAMKEEP


def _ours(family: str, place: str, name: str = GRAMKEEP, *, further: bool = True) -> Row:
    return Row(family, name, "uvloop", GRAMKEEP, place, further)


def _ours_on_asyncio(family: str) -> Row:
    return Row(family, f"{GRAMKEEP}, asyncio", "asyncio", GRAMKEEP, family)


ROWS: Final = (
    _ours("redis", "redis"),
    _ours_on_asyncio("redis"),
    Row("redis", "grammY", "node", "grammy-redis", "redis", further=True),
    Row("redis", "GramIO", "node", "gramio-redis", "redis"),
    Row("redis", "Telegraf", "node", "telegraf-redis", "redis"),
    Row("redis", "aiogram FSM", "uvloop", "aiogram", "redis-py", further=True),
    Row("redis", "pyTelegramBotAPI states", "uvloop", "telebot", "redis-py"),
    Row("redis", "redis-py, GET and SET", "uvloop", "redis-py", "redis-py"),
    _ours("postgres", "postgres"),
    _ours_on_asyncio("postgres"),
    Row("postgres", "grammY", "node", "grammy-psql", "postgres", further=True),
    _ours("sqlite", "sqlite"),
    _ours_on_asyncio("sqlite"),
    _ours("sqlite", "sqlite-normal", "gramkeep, NORMAL", further=False),
    Row("sqlite", "GramIO", "node-with-sqlite", "gramio-sqlite", "sqlite-file"),
    Row("sqlite", "node:sqlite", "node-with-sqlite", "node-sqlite", "sqlite-file", further=True),
    _ours("file", "file"),
    Row("file", "grammY", "node", "grammy-file", "file", further=True),
    Row("file", "python-telegram-bot, persisted", "uvloop", "ptb-saved", "file"),
    _ours("memory", "memory"),
    Row("memory", "grammY", "node", "grammy-memory", "memory", further=True),
    Row("memory", "Telegraf", "node", "telegraf-memory", "memory"),
    Row("memory", "aiogram FSM", "uvloop", "aiogram", "nothing"),
    Row("memory", "pyTelegramBotAPI states", "uvloop", "telebot", "nothing"),
    Row("memory", "python-telegram-bot, chat_data", "uvloop", "ptb", "file"),
    _ours("mysql", "mysql", further=False),
    _ours("mongodb", "mongodb", further=False),
)

FAMILIES: Final = tuple(dict.fromkeys(row.family for row in ROWS))


@dataclass(frozen=True)
class Plan:
    """How much of it; times are in seconds.

    ``rates``: of arrivals, a second, by family. ``large``: sizes of sessions besides ``size``, in
    bytes of JSON, each with its number of keys. ``touched``: different keys while memory is
    measured, in ``samples`` steps, fewer where ``touched_seconds`` are over before.
    """

    name: str
    rounds: int
    seconds: float
    levels: tuple[int, ...] = (1, 16, 128)
    size: int = 300
    keys: int = 4_000
    rates: tuple[int, ...] = (500, 2_000, 8_000)
    arrival_rounds: int = 3
    arrival_seconds: float = 2.0
    large: tuple[tuple[int, int], ...] = ((4_096, 4_000), (65_536, 400))
    large_level: int = 16
    large_rounds: int = 3
    touched: int = 200_000
    touched_seconds: float = 20.0
    samples: int = 100


PLANS: Final = {
    plan.name: plan
    for plan in (
        Plan("full", rounds=4, seconds=0.8),
        Plan(
            "quick",
            rounds=2,
            seconds=0.25,
            keys=500,
            rates=(2_000,),
            arrival_rounds=1,
            arrival_seconds=0.5,
            large=(),
            touched=10_000,
            touched_seconds=0.5,
        ),
        Plan(
            "tiny",
            rounds=1,
            seconds=0.05,
            levels=(1, 16),
            keys=50,
            rates=(200,),
            arrival_rounds=1,
            arrival_seconds=0.2,
            large=((4_096, 20),),
            large_rounds=1,
            touched=400,
            samples=4,
        ),
    )
}
