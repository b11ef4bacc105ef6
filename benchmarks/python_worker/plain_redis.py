"""No session library at all: ``GET``, ``SET`` and `json`, over redis-py."""

from __future__ import annotations

import json
from typing import cast

from redis.asyncio import Redis

from benchmarks.order import new_dict
from benchmarks.python_worker.contender import Contender


class PlainRedis(Contender):
    """What one writes by hand."""

    packages = ("redis", "hiredis")

    def __init__(self, place: str, items: int) -> None:
        self._redis = Redis.from_url(place)
        self._items = items

    async def update(self, number: int) -> None:
        text = cast("bytes | None", await self._redis.get(str(number)))
        data = new_dict(self._items) if text is None else json.loads(text)
        data["count"] += 1
        await self.handler()
        await self._redis.set(str(number), json.dumps(data))

    async def aclose(self) -> None:
        await self._redis.aclose()
