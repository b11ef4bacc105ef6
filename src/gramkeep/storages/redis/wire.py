"""One connection to a Redis server, on which many calls are under way at once.

While commands are under way, further calls gather; they go together in the next ones. There are
few commands under way, so that they are large, but more than one, so that the server has something
to do while its answers are read. There are no timers in this: a call that comes alone goes at once.
Answers come in the order of the commands, so nothing can get out of step: a call whose caller was
cancelled is answered all the same, and its answer dropped.
"""

from __future__ import annotations

import asyncio
import os
import select
import weakref
from collections import deque
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from gramkeep.storages.driver import driver_of
from gramkeep.storages.redis.answers import Answer, wake, wake_soon
from gramkeep.storages.redis.calls import Call, command_of
from gramkeep.storages.redis.commands import Command, commands_of
from gramkeep.storages.redis.packing import packed, packed_command

with driver_of("redis"):
    import hiredis

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

FEW: Final = 2  # commands under way, with which no others are sent before one is answered
SILENCE: Final = 0.01  # seconds after which a connection is looked at before it is used
ROUNDS: Final = 5  # of the event loop, in which it has read what came, whatever layers are between

_INCOMPLETE: Final = object()


class Lost(Exception):
    """The connection ended before the call was answered, or, if not ``was_sent``, was made."""

    def __init__(self, reason: str, *, was_sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.was_sent = was_sent


class Refused(Exception):
    """The server answered the call with an error, and did nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooFewReplicas(Exception):
    """The change was made, and too few replicas have it."""

    def __init__(self, acknowledged: int, expected: int) -> None:
        super().__init__(
            f"the change is on the primary, and was confirmed by {acknowledged} replicas instead "
            f"of {expected} in time: a failover now may lose it"
        )


class Replicas:
    """How many replicas must have a change before it is answered, and within how many seconds."""

    __slots__ = ("count", "packed")

    def __init__(self, count: int, timeout: float) -> None:
        self.count = count
        self.packed = packed_command(
            3, packed(b"WAIT", b"%d" % count, b"%d" % max(1, round(timeout * 1000)))
        )


class Wire(asyncio.Protocol):
    """The connection, taken over from redis-py when it had logged in.

    ``node`` is the host and port it leads to. ``timeout``: seconds without an answer after which
    it is given up.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        node: tuple[str, int],
        *,
        timeout: float,
        replicas: Replicas | None = None,
    ) -> None:
        self.node = node
        self.loop = asyncio.get_running_loop()
        self.lost: str | None = None
        self._timeout = timeout
        self._replicas = replicas
        # Kept because a StreamWriter that is collected closes its transport.
        self._writer = writer
        self._transport = cast("asyncio.Transport", writer.transport)
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._queue: list[Answer] = []
        self._under_way: deque[Command | _Waiting] = deque()
        self._flush_is_due = False
        self._is_busy = False  # calls came together the last time: another one won't be alone
        self._watch: asyncio.TimerHandle | None = None
        self._heard = monotonic()
        self._idle: asyncio.Future[None] | None = None
        self._ended = self.loop.create_future()
        _open.add(self)

    @classmethod
    async def over(
        cls, connection: AbstractConnection, *, timeout: float, replicas: Replicas | None
    ) -> Wire:
        """Let redis-py connect and log in, and take the connection from it."""
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # There is no other way to them:
        reader, writer = connection._reader, connection._writer  # noqa: SLF001
        if reader is None or writer is None or reader.at_eof():
            raise ConnectionResetError("the server closed the connection")
        connection._reader = connection._writer = None  # noqa: SLF001 - no longer its own
        node = (str(getattr(connection, "host", "")), int(getattr(connection, "port", 0)))
        wire = cls(writer, node, timeout=timeout, replicas=replicas)
        wire._transport.set_protocol(wire)
        if wire._transport.is_closing():
            wire._lose("the server closed the connection")
        return wire

    @property
    def is_usable(self) -> bool:
        """Whether calls can be made here, from this event loop."""
        return self.lost is None and self.loop.is_running()  # cheaper than to ask which one is

    def ask(self, call: Call) -> Awaitable[Any]:
        """Make a call, now, and give what to await. Raises `Lost`, `Refused`, `TooFewReplicas`.

        Cancelling it takes the call back if it isn't sent, and otherwise waits for its end.
        """
        if self.lost is not None:
            raise Lost(self.lost, was_sent=False)
        is_first = not self._queue and not self._under_way
        if is_first and monotonic() - self._heard > SILENCE and self._has_input():
            return self._ask_after_reading(call)
        if call.is_asking:
            asking = Answer(command_of(b"ASKING"), self._queue, loop=self.loop)
            asking.add_done_callback(_retrieved)
            self._queue.append(asking)
        answer = Answer(call, self._queue, loop=self.loop)
        self._queue.append(answer)
        if not self._flush_is_due:
            if self._under_way or self._is_busy:
                self._flush_soon()
            else:
                self._flush()
        return answer

    async def _ask_after_reading(self, call: Call) -> Any:
        """Let the event loop read, and tell if it is the end: with TLS, step by step."""
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
            if self.lost is not None:
                break
        self._heard = monotonic()  # it was looked at
        return await self.ask(call)

    def abandon(self, reason: str) -> None:
        """End the connection at once: what is under way has no answer."""
        self._lose(reason)
        self._transport.abort()

    async def aclose(self) -> None:
        """End the connection when all calls are answered, which takes ``timeout`` at most."""
        if self.lost is None and (self._queue or self._under_way):
            self._idle = self.loop.create_future()
            await asyncio.shield(self._idle)
        self._lose("it was closed")
        self._transport.close()
        await asyncio.wait([self._ended], timeout=1)  # a TLS server may not say goodbye
        self._transport.abort()

    def leave_to_parent(self) -> None:
        """Let go of the connection in a forked child, without a word to the server."""
        self.lost = "it belongs to the parent process"
        # What closes it here would otherwise say goodbye over TLS in the parent's name.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._transport.get_extra_info("socket").fileno())
        os.close(nothing)

    # What the event loop calls:

    def data_received(self, data: bytes) -> None:
        """Answer the calls that have their answers."""
        reader, under_way = self._reader, self._under_way
        answered: list[Answer] = []
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                if isinstance(reply, hiredis.PushNotification):
                    continue
                if not under_way:
                    self.abandon("the server sent what nobody asked for")
                    break
                answered += self._answered(under_way.popleft(), reply)
        except hiredis.ProtocolError as error:
            self.abandon(f"the server doesn't speak Redis's protocol ({error})")
        self._heard = monotonic()
        if answered:
            self._is_busy = len(answered) > 1
        self._flush_is_due = True  # when those who are woken now have asked for more
        try:
            wake(answered)
        finally:
            self._flush()

    def eof_received(self) -> None:
        """Make no more calls."""
        self._lose("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all calls."""
        reason = "the server closed the connection" if exc is None else str(exc)
        self._lose(reason)
        if not self._ended.done():
            self._ended.set_result(None)

    def _has_input(self) -> bool:
        """Tell whether there is anything to read: where nobody asked, it is the connection's end.

        The event loop would tell in its next round. If it stood still for a while, or the whole
        machine did, that would be too late for a change, whose outcome would not be known.
        """
        file = self._transport.get_extra_info("socket").fileno()
        if hasattr(select, "poll"):  # select() can't look at every file, and Windows has no other
            poll = select.poll()
            poll.register(file, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([file], [], [], 0)[0])

    def _flush_soon(self) -> None:
        if len(self._under_way) < FEW:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self.lost is not None:
            return
        if not self._queue:
            if not self._under_way:
                self._tell_idle()
            return
        if len(self._under_way) >= FEW:
            return
        now = monotonic()
        packed = []
        for command in commands_of(self._queue):
            command.sent_at = now
            packed.append(command.packed())
            self._under_way.append(command)
            if self._replicas is not None and command.is_change:
                packed.append(self._replicas.packed)
                self._under_way.append(_Waiting(command))
        self._queue.clear()  # not made anew: what is in it can be taken back
        self._transport.write(b"".join(packed))
        if self._watch is None:
            self._watch = self.loop.call_later(self._timeout, self._look)

    def _answered(self, asked: Command | _Waiting, reply: Any) -> Sequence[Answer]:
        """Give calls their answers, and say which."""
        if isinstance(asked, _Waiting):
            assert self._replicas is not None  # noqa: S101 - nobody waits without
            asked.finish(reply, self._replicas.count)
            return asked.answers
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith("NOSCRIPT") and asked.kind is not None:
                # The server was restarted, or is another one by now, and hasn't got the script.
                # Its text takes it there.
                self._send_with_text(asked)
                return ()
            reply = Refused(text)
        waiting = self._under_way[0] if self._under_way else None
        if isinstance(waiting, _Waiting) and waiting.command is asked:
            waiting.reply = reply
            return ()
        asked.finish(reply)
        return asked.answers

    def _send_with_text(self, command: Command) -> None:
        packed = command.packed(with_text=True)
        self._under_way.append(command)
        if self._replicas is not None and command.is_change:
            waiting = self._under_way[0]
            assert isinstance(waiting, _Waiting)  # noqa: S101 - it was sent behind the command
            waiting.command = None
            packed += self._replicas.packed
            self._under_way.append(_Waiting(command))
        self._transport.write(packed)

    def _look(self) -> None:
        """Give the connection up if what was asked first has waited for too long."""
        self._watch = None
        if not self._under_way or self.lost is not None:
            return
        left = self._under_way[0].sent_at + self._timeout - monotonic()
        if left <= 0:
            self.abandon(f"it didn't answer within {self._timeout:g} s")
        else:
            self._watch = self.loop.call_later(left, self._look)

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._watch is not None:
            self._watch.cancel()
        sent = [answer for asked in self._under_way for answer in asked.answers]
        for answers, was_sent in ((sent, True), (self._queue, False)):
            for answer in answers:
                if not answer.done():
                    answer.set_exception(Lost(reason, was_sent=was_sent))
            wake_soon(answers)
        self._under_way.clear()
        self._queue.clear()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


_open: weakref.WeakSet[Wire] = weakref.WeakSet()


def _after_fork() -> None:
    for wire in list(_open):
        if wire.lost is None:
            wire.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _retrieved(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


class _Waiting:
    """The command WAIT, behind another: what that one is answered, once replicas have it."""

    __slots__ = ("command", "reply")

    def __init__(self, command: Command) -> None:
        self.command: Command | None = command
        self.reply: Any = None

    @property
    def answers(self) -> list[Answer]:
        return [] if self.command is None else self.command.answers

    @property
    def sent_at(self) -> float:
        return float("inf") if self.command is None else self.command.sent_at

    def finish(self, acknowledged: Any, expected: int) -> None:
        command, reply = self.command, self.reply
        if command is None:
            return
        if isinstance(acknowledged, hiredis.ReplyError):
            acknowledged = 0
        if not isinstance(reply, Exception) and acknowledged < expected:
            first = 0
            for answer in command.answers:
                own = reply[first : first + answer.call.answers]
                first += answer.call.answers
                done = answer.call.is_change and 1 in own
                answer.finish(TooFewReplicas(acknowledged, expected) if done else own)
            return
        command.finish(reply)
