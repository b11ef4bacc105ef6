"""Updates on their way to the bot: numbered, filtered, kept until acknowledged, long-polled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gramkeep.testing.telegram.errors import BotApiError, conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gramkeep.testing.telegram.objects import JSON

logger = logging.getLogger("gramkeep.testing.telegram")

OrderKey: TypeAlias = tuple[str, object]

# https://core.telegram.org/bots/api#getupdates, "allowed_updates"
NOT_DELIVERED_BY_DEFAULT = frozenset({"chat_member", "message_reaction", "message_reaction_count"})


@dataclass(eq=False)
class Pending:
    """An update not yet acknowledged; `repeats` more deliveries are owed after that."""

    update_id: int
    update: JSON
    order: OrderKey
    repeats: int = 0


def order_key(kind: str, payload: JSON) -> OrderKey:
    """Tell which updates reach a webhook one after another: those of equal keys.

    As in the Bot API server's source (`Client::add_update`, its `webhook_queue_id`): messages per
    chat, polls per poll, queries per user and kind.
    """
    if kind == "callback_query" or "chat" not in payload:
        if kind in {"poll", "poll_answer"}:
            return "poll", payload.get("id", payload.get("poll_id"))
        if kind in {"shipping_query", "pre_checkout_query"}:
            kind = "payment"
        return kind, payload.get("from", {}).get("id")
    return "chat", payload["chat"]["id"]


class Mailbox:
    """The queue of updates.

    `changed` is called whenever it grew or shrank, `listener` gets each new update; `repeats` tells
    how often an update of a type is to be delivered once more.
    """

    def __init__(self, changed: Callable[[], None], repeats: Callable[[str], int]) -> None:
        self._changed = changed
        self._repeats = repeats
        self._next_id = 100_000_001
        self._poller: asyncio.Future[None] | None = None
        self._held: list[tuple[str, JSON, int | None]] | None = None
        self.pending: dict[int, Pending] = {}
        self.allowed: list[str] = []
        self.listener: Callable[[Pending], None] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.pending and not self._held

    def allow(self, kinds: Iterable[str]) -> None:
        """Deliver updates of these kinds only; no kinds: all but three, as Telegram."""
        self.allowed = list(kinds)

    def put(self, kind: str, payload: JSON, update_id: int | None = None) -> int | None:
        """Queue an update; return its id, or None where it is held back or not allowed."""
        if self._held is not None:
            self._held.append((kind, payload, update_id))
            return None
        # As in Telegram, the filter looks at an update when it comes about, not when it is fetched.
        if kind not in self.allowed if self.allowed else kind in NOT_DELIVERED_BY_DEFAULT:
            logger.info("%s is not delivered: the bot did not ask for it (allowed_updates)", kind)
            return None
        if update_id is None:
            update_id = self._next_id
        self._next_id = max(self._next_id, update_id + 1)
        self.pending[update_id] = Pending(
            update_id,
            {"update_id": update_id, kind: payload},
            order_key(kind, payload),
            self._repeats(kind),
        )
        if self._poller is not None and not self._poller.done():
            self._poller.set_result(None)
        if self.listener is not None:
            self.listener(self.pending[update_id])
        self._changed()
        return update_id

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep updates back; queue them all at once at the end."""
        if self._held is not None:
            yield  # the outermost hold decides
            return
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            for update in held:
                self.put(*update)

    def drop_all(self) -> None:
        self.pending.clear()
        self._changed()

    def acknowledge(self, pending: Pending) -> bool:
        """Forget an update; False where it is to be delivered once more."""
        if pending.repeats:
            pending.repeats -= 1
            return False
        self.pending.pop(pending.update_id, None)
        self._changed()
        return True

    async def get_updates(self, offset: int, limit: int, timeout: float) -> list[JSON]:
        """Answer https://core.telegram.org/bots/api#getupdates."""
        if offset < 0:
            # "Starting from -offset update from the end of the queue": counted in ids, as Telegram
            # does, which is the same as long as the queue has no gaps.
            offset = max(offset + self._next_id, min(self.pending, default=0))
        for pending in [p for p in self.pending.values() if p.update_id < offset]:
            self.acknowledge(pending)
        batch = self._batch(limit)
        if batch or not timeout:
            return batch
        self.interrupt(
            "terminated by other getUpdates request; "
            "make sure that only one bot instance is running"
        )
        self._poller = poller = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await poller
        except TimeoutError:
            return []
        finally:
            if self._poller is poller:
                self._poller = None
        return self._batch(limit)

    def _batch(self, limit: int) -> list[JSON]:
        # Repetitions come first: a bot takes its next offset from the last update of a batch.
        waiting = sorted(self.pending.values(), key=lambda p: p.update_id)[:limit]
        return [pending.update for pending in waiting]

    def interrupt(self, reason: str) -> None:
        """End the long poll under way, if any, with 409 Conflict."""
        self._end_poll(conflict(reason))

    def close(self) -> None:
        """End the long poll under way, if any, as a server that shuts down."""
        self._end_poll(BotApiError(500, "Internal Server Error: restart"))

    def _end_poll(self, error: BotApiError) -> None:
        if self._poller is not None and not self._poller.done():
            self._poller.set_exception(error)
