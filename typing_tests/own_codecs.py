"""What type checkers must see of the codecs; only type-checked, never run."""

from dataclasses import dataclass
from typing import Any, assert_type

from gramkeep import (
    BoundCodec,
    Codec,
    CodecError,
    CompressedCodec,
    EncryptedCodec,
    JSONCodec,
    MessagePackCodec,
    SessionOptions,
    Sessions,
)


@dataclass
class Counter:
    count: int = 0


class OwnCodec(Codec):
    def bind(self, data_type: Any) -> BoundCodec:
        return OwnBound()


class OwnBound(BoundCodec):
    def encode(self, value: Any, key: str) -> bytes:
        raise CodecError("no", "$.a")

    def decode(self, data: bytes, key: str) -> Any:
        return data


key = EncryptedCodec.generate_key()
assert_type(key, str)
codecs: list[Codec] = [
    JSONCodec(),
    MessagePackCodec(),
    OwnCodec(),
    CompressedCodec(),
    CompressedCodec(MessagePackCodec(), 100, max_expanded=1000),
    CompressedCodec(codec=OwnCodec(), above=100),
    EncryptedCodec([key]),
    EncryptedCodec(keys=[key, b"old"], codec=CompressedCodec(), accept_plain=True),
    EncryptedCodec(keys=(key,)),
]
EncryptedCodec([key], JSONCodec)  # type: ignore[arg-type] # an instance
CompressedCodec(above="1k")  # type: ignore[arg-type]
OwnCodec().bind(int).seal("text", "key")  # type: ignore[arg-type]

for codec in codecs:
    assert_type(codec.bind(Counter), BoundCodec)
    assert_type(Sessions(initial=Counter, codec=codec), Sessions[Counter])
    assert_type(SessionOptions(initial=Counter, codec=codec), SessionOptions[Counter])
