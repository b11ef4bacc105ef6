"""The HTTP side: routes, tokens, faults, and carrying calls out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gramkeep.testing.telegram import parameters
from gramkeep.testing.telegram.errors import BotApiError
from gramkeep.testing.telegram.methods import METHODS
from gramkeep.testing.telegram.objects import JSON, Call
from gramkeep.testing.telegram.receiving import RECEIVING, Receiving

if TYPE_CHECKING:
    from gramkeep.testing.telegram.faults import Faults
    from gramkeep.testing.telegram.world import World

logger = logging.getLogger("gramkeep.testing.telegram")

MAX_UPLOAD = 50 * 1024**2  # bytes; https://core.telegram.org/bots/api#sending-files

NAMES = {name.lower(): name for name in (*METHODS, *RECEIVING)}


class BotApi:
    """Answers the bot's calls and records them; `finished` holds those no test waited for yet."""

    def __init__(
        self,
        token: str,
        world: World,
        faults: Faults,
        *,
        webhook_in_order: bool,
        webhook_backoff: float,
    ) -> None:
        self.calls: list[Call] = []
        self.finished: defaultdict[str, deque[Call]] = defaultdict(deque)
        self.receiving = Receiving(
            world,
            self._carry_out_for_webhook,
            webhook_in_order=webhook_in_order,
            webhook_backoff=webhook_backoff,
        )
        self._token = token
        self._world = world
        self._faults = faults

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_UPLOAD)
        app.router.add_route("*", "/bot{token}/{method}", self._handle)
        app.router.add_route("*", "/{path:.*}", self._handle_other)
        return app

    def describe(self) -> str:
        """Say what the bot did last, for the errors of tests."""
        if not self.calls:
            return "the bot made no call at all, not even getUpdates"
        made = [call for call in self.calls if call.method != "getUpdates"]
        calls = ", ".join(
            call.method + ("" if call.ok else f" ({call.error or 'under way'})")
            for call in made[-10:]
        )
        return f"the bot's last calls: {calls or 'only getUpdates'}"

    async def _handle_other(self, request: web.Request) -> web.StreamResponse:
        logger.warning("%s is no path of the Bot API: /bot<token>/<method>", request.path)
        return _refusal(BotApiError(404, "Not Found"))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["token"] != self._token:
            return _refusal(BotApiError(401, "Unauthorized"))
        asked = request.match_info["method"]
        name = NAMES.get(asked.lower())
        if name is None:
            logger.warning("the bot called %s, which this server does not know", asked)
            return _refusal(BotApiError(404, "Not Found"))
        try:
            params = await parameters.read_parameters(request)
        except BotApiError as error:
            return _refusal(error)
        call = Call(method=name, params=params, time=time.time())
        self.calls.append(call)
        if (fault := self._faults.take("slow", name)) is not None:
            await asyncio.sleep(fault.delay)
        if self._faults.take("drop_request", name) is not None:
            return self._drop(request, call)
        try:
            if (fault := self._faults.take("error", name)) is not None and fault.error is not None:
                raise fault.error
            result = await self._carry_out(name, params)
        except BotApiError as error:
            call.error = str(error)
            response = _refusal(error)
        else:
            call.ok, call.result = True, result
            response = web.json_response({"ok": True, "result": result})
        if self._faults.take("drop_answer", name) is not None:
            return self._drop(request, call)
        self._finish(call)
        return response

    def _finish(self, call: Call) -> None:
        call.done = True
        self.finished[call.method].append(call)
        self._world.bell.ring()

    def _drop(self, request: web.Request, call: Call) -> web.StreamResponse:
        call.dropped = True
        call.error = call.error or "connection dropped"
        self._finish(call)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _carry_out_for_webhook(self, method: str, params: JSON) -> None:
        """Carry out a call that came in the answer of a webhook: nobody hears of its result."""
        name = NAMES.get(method.lower())
        if name is None or name in RECEIVING:
            logger.warning("the webhook answered with %s, which this server does not know", method)
            return
        call = Call(method=name, params=params, time=time.time())
        self.calls.append(call)
        try:
            call.params = parameters.decode_objects(params)
            call.result = METHODS[name](self._world, call.params)
            call.ok = True
        except BotApiError as error:
            call.error = str(error)
            logger.warning("the webhook answered with %s, which failed: %s", name, error)
        self._finish(call)

    async def _carry_out(self, name: str, params: JSON) -> Any:
        if name in RECEIVING:
            return await self.receiving.carry_out(name, params)
        return METHODS[name](self._world, params)


def _refusal(error: BotApiError) -> web.Response:
    answer: JSON = {"ok": False, "error_code": error.code, "description": error.description}
    if error.parameters is not None:
        answer["parameters"] = error.parameters
    return web.json_response(answer, status=error.code)
