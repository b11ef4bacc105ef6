"""Bytes of any sort in layouts that take JSON alone."""

import json

import msgspec

from gramkeep.storage import Record


class JSONTexts:
    """Before a storage's class: keeps what isn't JSON in a JSON text, a character for each byte."""

    async def get(self, keys):
        return [_unpacked(record) for record in await super().get(keys)]

    async def claim(self, keys, lease):
        return [_unpacked(answer) for answer in await super().claim(keys, lease)]

    async def put(self, puts, lease=None, *, atomic=False):
        return await super().put([_packed(put) for put in puts], lease, atomic=atomic)


def _packed(put):
    if not isinstance(put.value, bytes):
        return put
    text = json.dumps(put.value.decode("latin-1"), ensure_ascii=False)
    return msgspec.structs.replace(put, value=text.encode())


def _unpacked(answer):
    if not isinstance(answer, Record):
        return answer
    return msgspec.structs.replace(answer, value=json.loads(answer.value).encode("latin-1"))
