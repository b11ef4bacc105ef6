"""Sessions as MessagePack."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from gramkeep.codec.typed import Format, TypedCodec
from gramkeep.envelope import MARK


class MessagePackCodec(TypedCodec):
    """MessagePack by msgspec, typed: smaller than JSON, and not to be read by eye.

    Keeps the same types as `JSONCodec`, and beside them NaN and infinity. Where the type says
    nothing, bytes, and keys that are no text, are kept as well. Integers must fit in 64 bits.
    MessagePack keeps aware datetimes as moments, in UTC: those at another offset are refused.
    """

    format: ClassVar[Format] = Format(
        "MessagePack", msgspec.msgpack.Encoder, msgspec.msgpack.Decoder, MARK.encode()
    )
