import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gramkeep import StorageUnavailable
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Lease, Put, Record, Storage

T = TypeVar("T")


class OneFileStorage(Storage):
    """All sessions in one JSON file, for bots with few users and one process."""

    transactional = True
    _lock = threading.Lock()  # one for all objects: two of them may use the same file

    def __init__(self, path: Path) -> None:
        self.name = f"onefile:{path}"
        self.path = path

    async def get(self, keys: Sequence[str]) -> list[Record | None]:
        stored = await self._in_thread(self._load)
        return [stored.get(key) for key in keys]

    async def put(
        self, puts: Sequence[Put], lease: Lease | None = None, *, atomic: bool = False
    ) -> list[bool]:
        return await self._in_thread(lambda: self._change(puts, atomic=atomic))

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        for key in await self._in_thread(self._load):
            if key.startswith(prefix):
                yield key

    async def aclose(self) -> None:
        """Nothing stays open between two calls."""

    async def _in_thread(self, function: Callable[[], T]) -> T:
        def with_lock() -> T:
            with self._lock:
                return function()

        call = asyncio.ensure_future(asyncio.to_thread(with_lock))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])  # a thread runs on, so wait until it has settled
            raise
        except (OSError, ValueError) as error:
            raise StorageUnavailable(storage=self.name, reason=str(error)) from error

    def _load(self) -> dict[str, Record]:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return {}  # only this means "nothing stored"; any other error is one
        records = {
            key: Record(base64.b64decode(value), base64.b64decode(value), expires_at)
            for key, (value, expires_at) in json.loads(text).items()
        }
        now = time.time()
        return {
            key: record
            for key, record in records.items()
            if record.expires_at is None or record.expires_at > now
        }

    def _save(self, stored: dict[str, Record]) -> None:
        encoded = {
            key: (base64.b64encode(record.value).decode(), record.expires_at)
            for key, record in stored.items()
        }
        beside = self.path.with_suffix(".new")
        with beside.open("w") as file:
            json.dump(encoded, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)  # the old file or the new one, even if the power fails

    def _change(self, puts: Sequence[Put], *, atomic: bool) -> list[bool]:
        stored = self._load()
        answers = [is_expected(put, stored.get(put.key)) for put in puts]
        if any(answers) and (all(answers) or not atomic):
            for put, expected in zip(puts, answers, strict=True):
                if expected:
                    apply(put, stored)
            self._save(stored)
        return answers


def is_expected(put: Put, record: Record | None) -> bool:
    if put.expected is ANY:
        return True
    if record is None or put.expected is ABSENT:
        return record is None and put.expected is ABSENT
    return record.token == put.expected


def apply(put: Put, stored: dict[str, Record]) -> None:
    record = stored.get(put.key)
    expires_at = None if put.ttl is None else time.time() + put.ttl
    if put.value is DELETE:
        stored.pop(put.key, None)
    elif isinstance(put.value, bytes):
        stored[put.key] = Record(put.value, put.value, expires_at)
    elif put.value is KEEP and record is not None and put.ttl is not None:
        stored[put.key] = Record(record.value, record.token, expires_at)
