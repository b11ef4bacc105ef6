"""Switches that make the server misbehave as Telegram, or the network before it, sometimes does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from gramkeep.testing.telegram.errors import BotApiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

Kind: TypeAlias = Literal["slow", "error", "drop_request", "drop_answer", "deliver_twice"]


@dataclass(eq=False, kw_only=True)
class Fault:
    """One switched-on fault; `used` counts how often it struck.

    It ends after `times`, with `clear()`, or at the end of a `with` block on it.
    """

    kind: Kind
    times: int | None
    only: frozenset[str] | None
    delay: float = 0
    error: BotApiError | None = None
    used: int = 0
    _cleared: bool = field(default=False, repr=False)

    @property
    def is_over(self) -> bool:
        return self._cleared or (self.times is not None and self.used >= self.times)

    def clear(self) -> None:
        """End the fault now."""
        self._cleared = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()


class Faults:
    """The faults of one server, usable at any time.

    Everywhere `times` is the number of calls hit, None for all until cleared, and `methods` limits
    the fault to calls of these methods, such as `{"sendMessage"}`; None hits all, getUpdates too.
    """

    def __init__(self, methods: Mapping[str, str]) -> None:
        self._known = methods  # lower case to documented case
        self._faults: list[Fault] = []

    def slow(
        self, seconds: float, *, times: int | None = None, methods: Iterable[str] | None = None
    ) -> Fault:
        """Carry calls out only after `seconds`."""
        return self._add("slow", times, self._methods(methods), delay=seconds)

    def too_many_requests(
        self,
        *,
        retry_after: int = 1,
        times: int | None = None,
        methods: Iterable[str] | None = None,
    ) -> Fault:
        """Refuse calls with 429 and `parameters.retry_after`, in seconds."""
        error = BotApiError(
            429, f"Too Many Requests: retry after {retry_after}", {"retry_after": retry_after}
        )
        return self._add("error", times, self._methods(methods), error=error)

    def server_error(
        self,
        code: int = 502,
        description: str = "Bad Gateway",
        *,
        times: int | None = None,
        methods: Iterable[str] | None = None,
    ) -> Fault:
        """Refuse calls with a 5xx error, without carrying them out."""
        return self._add(
            "error", times, self._methods(methods), error=BotApiError(code, description)
        )

    def drop_request(
        self, *, times: int | None = None, methods: Iterable[str] | None = None
    ) -> Fault:
        """Close the connection instead of carrying the call out."""
        return self._add("drop_request", times, self._methods(methods))

    def drop_answer(
        self, *, times: int | None = None, methods: Iterable[str] | None = None
    ) -> Fault:
        """Carry the call out, then close the connection instead of answering."""
        return self._add("drop_answer", times, self._methods(methods))

    def deliver_twice(
        self, *, times: int | None = None, kinds: Iterable[str] | None = None
    ) -> Fault:
        """Deliver updates a second time, under the same `update_id`, after the bot got them.

        `times` counts updates, `kinds` limits the fault to these types of updates. A polling bot
        gets the second copy after it acknowledged the first, a webhook after it answered with 2xx.
        """
        return self._add("deliver_twice", times, frozenset(kinds) if kinds is not None else None)

    def clear(self) -> None:
        """End all faults."""
        for fault in self._faults:
            fault.clear()
        self._faults.clear()

    def take(self, kind: Kind, what: str) -> Fault | None:
        """Use the oldest fault of a kind that hits this method or update type."""
        self._faults = [fault for fault in self._faults if not fault.is_over]
        for fault in self._faults:
            if fault.kind == kind and (fault.only is None or what in fault.only):
                fault.used += 1
                return fault
        return None

    def repeats(self, update_kind: str) -> int:
        """How often an update is to be delivered again."""
        return 0 if self.take("deliver_twice", update_kind) is None else 1

    def _methods(self, methods: Iterable[str] | None) -> frozenset[str] | None:
        if methods is None:
            return None
        if isinstance(methods, str):
            raise UsageError(f'methods takes a set of names: {{"{methods}"}}')
        unknown = [method for method in methods if method.lower() not in self._known]
        if unknown:
            raise UsageError(f"no method of this server: {unknown}")
        return frozenset(self._known[method.lower()] for method in methods)

    def _add(
        self,
        kind: Kind,
        times: int | None,
        only: frozenset[str] | None,
        *,
        delay: float = 0,
        error: BotApiError | None = None,
    ) -> Fault:
        fault = Fault(kind=kind, times=times, only=only, delay=delay, error=error)
        self._faults.append(fault)
        return fault
