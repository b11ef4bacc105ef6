"""The demo as a story that is played, checked, and printed."""

from __future__ import annotations

import json
import re
from typing import Final

import aiohttp
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gramkeep.cli.bot_process import BotDied
from gramkeep.cli.scene import Scene, Seat
from gramkeep.errors import GramkeepError
from gramkeep.testing import Chat, Message, WaitTimeout

ROUNDS: Final = 10  # messages to each chat in the burst
ANSWERS_BEFORE_THE_KILL: Final = 6
PATIENCE: Final = 15.0  # seconds for an answer


class Deviation(Exception):
    """The story went otherwise than it must."""


async def tell_story(scene: Scene, console: Console) -> int:
    """Play the story; return 0 if everything was as it must be, otherwise say what wasn't and 1."""
    try:
        await _Story(scene, console).play()
    except (Deviation, WaitTimeout, BotDied, GramkeepError) as failure:
        console.print(f"\n[bold red]The demo failed:[/] {escape(str(failure))}", soft_wrap=True)
        if not isinstance(failure, BotDied) and (log := scene.bot.log()):
            console.print(f"\nThe bot wrote:\n{escape(log)}", soft_wrap=True)
        return 1
    return 0


class _Story:
    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene = scene
        self._console = console
        self._ada, self._linus, self._ada_in_group, self._linus_in_group = scene.seats
        self._chapters = 0

    async def play(self) -> None:
        self._print(
            f"A bot written with {self._scene.bot.framework}, a Bot API server on this machine, "
            f"and an SQLite file:\n{self._scene.bot.database}"
        )
        await self._start_bot()

        self._chapter("Everybody has a count of their own, and so has the group")
        await self._count(self._ada, "Hello!", 1)
        await self._count(self._ada, "Do you remember me?", 2)
        await self._count(self._linus, "Hi", 1)
        await self._count(self._ada_in_group, "Hello, everybody", 1)
        await self._count(self._linus_in_group, "Hi, Ada", 2)

        self._chapter("Linus wants to be forgotten; nobody else is")
        await self._reset(self._linus)
        await self._count(self._linus, "Who am I?", 1)
        await self._count(self._ada, "I am still Ada", 3)

        kept = await self._kill_in_a_burst()
        await self._go_on_from(kept)

        self._chapter("What is in the file at the end")
        await self._print_file()
        answers = sum(message.from_bot for chat in self._scene.chats for message in chat.messages)
        self._print(
            f"\n[bold green]All as it must be:[/] {answers} answers, one SIGKILL, and no count "
            "that was told is lost."
        )

    async def _start_bot(self) -> None:
        self._print("\nStarting the bot, which takes some seconds ...")
        await self._scene.start_bot()
        self._print(f"It runs, as process [bold]{self._scene.bot.pid}[/].")

    async def _count(self, seat: Seat, text: str, expected: int) -> None:
        """Let somebody write; check the count in the answer, and that in the file."""
        await self._exchange(seat, text, told=expected, stored=expected)

    async def _reset(self, seat: Seat) -> None:
        await self._exchange(seat, "/reset", told=None, stored=None)

    async def _exchange(
        self, seat: Seat, text: str, *, told: int | None, stored: int | None
    ) -> None:
        await self._write(seat, text)
        answer = await seat.chat.next_answer(PATIENCE)
        self._print_message(answer)
        _expect(f"the count told to {seat.name}", _count_in(answer), told)
        _expect(f"the count stored for {seat.chat.name}", (await self._stored())[seat.chat], stored)

    async def _kill_in_a_burst(self) -> dict[Chat, int]:
        """Kill the bot amid many messages; return the counts that are in the file then."""
        scene = self._scene
        self._chapter(f"{3 * ROUNDS} messages at once, and SIGKILL in the middle")
        before = {chat: count or 0 for chat, count in (await self._stored()).items()}
        said = {chat: len(chat.messages) for chat in scene.chats}
        for number in range(1, ROUNDS + 1):
            for seat in (self._ada, self._linus, self._ada_in_group):
                await seat.user.write(f"{number} of {ROUNDS}", chat=seat.chat)
        await scene.server.answers(ANSWERS_BEFORE_THE_KILL, timeout=PATIENCE)
        await scene.bot.kill()
        self._print(f"Process [bold]{scene.bot.pid}[/] was killed while it worked on them.")
        kept = {chat: count or 0 for chat, count in (await self._stored()).items()}
        table = Table("Chat", "Before", "Written", "Told up to", "In the file", box=box.SIMPLE)
        told = {}
        for chat in scene.chats:
            counts = [_count_in(message) or 0 for message in chat.messages[said[chat] :]]
            told[chat] = max([before[chat], *counts])
            cells = chat.name, before[chat], ROUNDS, told[chat], kept[chat]
            table.add_row(*map(str, cells))
        self._console.print(table)
        for chat in scene.chats:
            most = before[chat] + ROUNDS
            if not told[chat] <= kept[chat] <= most:
                raise Deviation(
                    f"the count stored for {chat.name}: expected {told[chat]}, which was told, "
                    f"to {most}, which were written; it is {kept[chat]}"
                )
        self._print("Every count that was told is in the file.")
        return kept

    async def _go_on_from(self, kept: dict[Chat, int]) -> None:
        """Start the bot again; each chat must go on at the next count, whatever was killed."""
        self._chapter("The bot comes back and goes on counting")
        seats = self._ada, self._linus, self._linus_in_group
        for seat in seats:
            await self._write(seat, "Are you there?")
        waiting = await self._updates_waiting()
        again = waiting - len(seats)
        self._print(f"Nobody is. These {len(seats)} messages wait at the server.")
        # As with any bot that polls, it depends on whether it had acknowledged what it fetched.
        self._print(
            f"{again} that the dead bot had fetched wait there, too."
            if again
            else "Those that the dead bot had fetched and not counted died with it."
        )
        await self._start_bot()
        fresh: dict[Chat, list[int]] = {chat: [] for chat in kept}
        while sum(map(len, fresh.values())) < waiting:
            [answer] = await self._scene.server.answers(1, timeout=PATIENCE)
            count = _count_in(answer)
            if count is not None and count > kept[answer.chat]:  # others were sent before the kill
                self._print_message(answer)
                fresh[answer.chat].append(count)
        stored = await self._stored()
        for chat, counts in fresh.items():
            going_on = [kept[chat] + 1 + n for n in range(len(counts))]
            _expect(f"the counts told to {chat.name}", sorted(counts), going_on)
            _expect(f"the count stored for {chat.name}", stored[chat], going_on[-1])

    async def _updates_waiting(self) -> int:
        server = self._scene.server
        url = f"{server.url}/bot{server.token}/getWebhookInfo"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            info = (await response.json())["result"]
        return int(info["pending_update_count"])

    async def _stored(self) -> dict[Chat, int | None]:
        """Read the counts from the file; None where a chat has no session."""
        rows = await self._scene.stored()
        return {
            chat: json.loads(rows[str(chat.id)])["count"] if str(chat.id) in rows else None
            for chat in self._scene.chats
        }

    async def _write(self, seat: Seat, text: str) -> None:
        self._print_message(await seat.user.write(text, chat=seat.chat))

    def _print_message(self, message: Message) -> None:
        who = message.sender.name if message.sender is not None else "?"
        if message.from_bot:
            who = f"bot to {message.chat.name}"
        elif message.chat.type != "private":
            who += f" to {message.chat.name}"
        style = "green" if message.from_bot else "bold"
        self._print(f"  [{style}]{escape(who):<14}[/] {escape(message.text or '')}")

    async def _print_file(self) -> None:
        names = {str(chat.id): chat.name for chat in self._scene.chats}
        table = Table("Key", "Whose", "Stored JSON", box=box.SIMPLE)
        for key, value in (await self._scene.stored()).items():
            table.add_row(key, names.get(key, "?"), escape(value))
        self._console.print(table)

    def _chapter(self, title: str) -> None:
        self._chapters += 1
        self._print(f"\n[bold cyan]{self._chapters}. {title}[/]")

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def _count_in(answer: Message) -> int | None:
    found = re.fullmatch(r"Message number (\d+) in this chat\.", answer.text or "")
    return int(found[1]) if found and answer.from_bot else None


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise Deviation(f"{what}: expected {_shown(expected)}, got {_shown(got)}")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
