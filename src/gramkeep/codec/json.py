"""Sessions as JSON."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from gramkeep.codec.typed import Format, TypedCodec
from gramkeep.envelope import MARK


class JSONCodec(TypedCodec):
    """JSON by msgspec, typed: the default.

    Dataclasses, msgspec Structs, attrs classes, TypedDicts, NamedTuples, enums, datetimes, UUIDs,
    Decimals, bytes, sets, tuples and their nestings load as what they were; msgspec's "Supported
    types" has the list and the JSON of each. pydantic models and dataclasses are validated by
    pydantic. Where the type says nothing (``dict``, ``list``, ``Any``), only what JSON itself
    knows is accepted: anything else is refused before it is saved, with its path.
    """

    format: ClassVar[Format] = Format(
        "JSON", msgspec.json.Encoder, msgspec.json.Decoder, MARK.encode()
    )
