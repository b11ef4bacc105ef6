"""What codecs around another codec have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gramkeep.codec.base import BoundCodec, Codec
from gramkeep.errors import ConfigurationError


class WrappingCodec(Codec):
    """A codec that leaves encoding to another, ``codec``, and only seals what that one made."""

    def __init__(self, codec: Codec) -> None:
        if not isinstance(codec, Codec):
            text = f"codec={codec!r} is no Codec; pass an instance, as in codec=JSONCodec()"
            raise ConfigurationError(text)
        self.codec = codec

    def inner_codecs(self) -> Iterator[Codec]:
        """Yield the codec inside, the one inside that, and so on."""
        inner: Codec = self.codec
        yield inner
        if isinstance(inner, WrappingCodec):
            yield from inner.inner_codecs()


class BoundWrapping(BoundCodec):
    """A `WrappingCodec` for the values of one type; subclasses extend ``seal`` and ``unseal``."""

    def __init__(self, inner: BoundCodec) -> None:
        self._inner = inner
        self.is_canonical = inner.is_canonical

    def encode(self, value: Any, key: str) -> bytes:
        return self._inner.encode(value, key)

    def decode(self, data: bytes, key: str) -> Any:
        return self._inner.decode(data, key)

    def is_canonical_form(self, encoded: bytes) -> bool:
        return self._inner.is_canonical_form(encoded)

    def is_same(self, value: Any, encoded: bytes, stored: bytes, key: str) -> bool:
        return self._inner.is_same(value, encoded, stored, key)

    def check(self, value: Any, encoded: bytes, key: str) -> None:
        self._inner.check(value, encoded, key)

    def seal(self, encoded: bytes, key: str) -> bytes:
        return self._inner.seal(encoded, key)

    def unseal(self, stored: bytes, key: str) -> bytes:
        return self._inner.unseal(stored, key)

    def is_sealed_as_now(self, stored: bytes) -> bool:
        return self._inner.is_sealed_as_now(stored)
