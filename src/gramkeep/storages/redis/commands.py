"""What goes over the wire: commands, each made of the calls that go together."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

from gramkeep.storages.redis.answers import Answer
from gramkeep.storages.redis.calls import BYTES_AT_ONCE
from gramkeep.storages.redis.packing import packed, packed_command, packed_number

NAMES_TOGETHER: Final = 100  # of keys and leases of calls that share a script: others are made
# ready while it runs

# Of calls, by their answers; these take half as long as expressions do.
_NAMES: Final = attrgetter("call.names")
_ARGUMENTS: Final = attrgetter("call.arguments")
_LENGTH: Final = attrgetter("call.length")


class Command:
    """What is sent at once for one or more calls of a kind, of which each has its answer."""

    __slots__ = ("answers", "kind", "sent_at", "size", "width")

    def __init__(self, answer: Answer) -> None:
        call = answer.call
        self.kind = call.kind
        self.answers = [answer]
        self.width = call.width
        self.size = len(call.arguments)
        self.sent_at = 0.0

    def takes(self, answer: Answer) -> bool:
        """Take a call of the same kind along, unless it gets too much."""
        call = answer.call
        width = self.width + call.width
        size = self.size + len(call.arguments)
        if width > NAMES_TOGETHER or size > BYTES_AT_ONCE:
            return False
        self.answers.append(answer)
        self.width, self.size = width, size
        return True

    @property
    def is_change(self) -> bool:
        """Whether there is anything in it that replicas must be given."""
        return any(answer.call.is_change for answer in self.answers)

    def packed(self, *, with_text: bool = False) -> bytes:
        """Write the command as it goes over the wire, the script's text in it if asked for."""
        kind, answers = self.kind, self.answers
        call = answers[0].call
        if kind is None:
            return packed_command(call.length, call.arguments)
        if call.is_asking:
            with_text = True  # it can't be asked for a second time without another ASKING
        how = packed(b"EVAL", kind.script.text) if with_text else kind.script.called
        return packed_command(
            3 + self.width + kind.length + sum(map(_LENGTH, answers)),
            *(how, packed_number(self.width), *map(_NAMES, answers)),
            *(kind.first, *map(_ARGUMENTS, answers)),
        )

    def finish(self, reply: Any) -> None:
        """Give each call its part of the reply, or all of them the error."""
        if self.kind is None or isinstance(reply, Exception):
            for answer in self.answers:
                answer.finish(reply)
            return
        first = 0
        for answer in self.answers:
            last = first + answer.call.answers
            answer.set_result(reply[first:last])
            first = last


def commands_of(answers: Iterable[Answer]) -> list[Command]:
    """Join calls of one kind, each kind in its order."""
    commands: list[Command] = []
    open_ones: dict[object, Command] = {}
    for answer in answers:
        call = answer.call
        if call.kind is None or call.is_alone:
            commands.append(Command(answer))
            continue
        alike = call.kind if call.slot is None else (call.kind, call.slot)
        command = open_ones.get(alike)
        if command is None or not command.takes(answer):
            command = open_ones[alike] = Command(answer)
            commands.append(command)
    return commands
