"""Delivery by webhook: in order within a chat, at once across chats, retried until answered."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from gramkeep.testing.telegram import parameters
from gramkeep.testing.telegram.errors import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gramkeep.testing.telegram.mailbox import Mailbox, OrderKey, Pending
    from gramkeep.testing.telegram.objects import JSON

MAX_BACKOFF = 1.0  # seconds; Telegram waits far longer, a test should not


class Webhook:
    """Posts updates to one URL until closed.

    `carry_out` is called with the method and parameters that the bot put into its answer.
    """

    def __init__(
        self,
        params: JSON,
        mailbox: Mailbox,
        carry_out: Callable[[str, JSON], None],
        *,
        in_order: bool,
        first_backoff: float,
    ) -> None:
        self.url = _checked_url(params)
        self.secret_token = parameters.text(params, "secret_token")
        self.max_connections = parameters.integer(params, "max_connections", 40, 1, 100)
        self.last_error: tuple[float, str] | None = None
        self._mailbox = mailbox
        self._carry_out = carry_out
        self._in_order = in_order
        self._first_backoff = first_backoff
        self._connections = asyncio.Semaphore(self.max_connections)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        self._queues: dict[OrderKey, deque[Pending]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, pending: Pending) -> None:
        """Send an update as soon as its turn comes."""
        key = pending.order if self._in_order else ("update", pending.update_id)
        if key in self._queues:
            self._queues[key].append(pending)
            return
        self._queues[key] = deque([pending])
        task = asyncio.create_task(self._send_queue(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop sending; what was not answered stays in the mailbox."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def info(self) -> JSON:
        """Return https://core.telegram.org/bots/api#webhookinfo, without what the mailbox knows."""
        info: JSON = {
            "url": self.url,
            "has_custom_certificate": False,
            "max_connections": self.max_connections,
        }
        if self.last_error is not None:
            when, what = self.last_error
            info |= {"last_error_date": int(when), "last_error_message": what}
        return info

    async def _send_queue(self, key: OrderKey) -> None:
        queue = self._queues[key]
        backoff = self._first_backoff
        while queue:
            async with self._connections:
                error = await self._post(queue[0].update)
            if error is not None:
                self.last_error = time.time(), error
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)
                continue
            backoff = self._first_backoff
            if self._mailbox.acknowledge(queue[0]):
                queue.popleft()
        del self._queues[key]

    async def _post(self, update: JSON) -> str | None:
        """Deliver one update; return what went wrong in Telegram's words."""
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.secret_token or ""}
        try:
            async with self._session.post(
                self.url,
                json=update,
                headers=headers if self.secret_token else None,
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:  # noqa: PLR2004 - the class of HTTP statuses
                    return f"Wrong response from the webhook: {response.status} {response.reason}"
                await self._answer_in_webhook(response)
        except TimeoutError:
            return "Read timeout expired"
        except aiohttp.ClientConnectorError:
            return "Connection refused"
        except aiohttp.ClientError:
            return "Webhook connection closed"
        return None

    async def _answer_in_webhook(self, response: aiohttp.ClientResponse) -> None:
        """Carry out https://core.telegram.org/bots/api#making-requests-when-getting-updates."""
        try:
            call = await parameters.read_body(response.content_type, response)
        except ValueError:
            return  # any 2xx accepts the update, whatever its body says
        method = call.pop("method", None)
        if isinstance(method, str) and _allowed_in_webhook(method.lower()):
            self._carry_out(method, call)


def _allowed_in_webhook(method: str) -> bool:
    # As in the Bot API server's source, WebhookActor::handle.
    return not method.startswith("get") and method not in {
        "setwebhook",
        "deletewebhook",
        "close",
        "logout",
    }


def _checked_url(params: JSON) -> str:
    url = str(params["url"])
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise bad_request("invalid webhook URL specified") from None
    if parts.hostname is None or parts.scheme not in {"http", "https"}:
        raise bad_request("invalid webhook URL specified")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
