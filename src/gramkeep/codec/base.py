"""What a codec is, and how it refuses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from gramkeep.codec.differences import alike, differences


class CodecError(ValueError):
    """A value or bytes that the codec refuses: ``reason``, and ``path`` in the data."""

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(f"{reason}, at {path}")
        self.reason = reason
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[CodecError], args: tuple[Any, ...], state: dict[str, Any]) -> CodecError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class EnvelopeFound(CodecError):
    """The bytes are an `Envelope`, where a bare value was asked for."""

    def __init__(self) -> None:
        super().__init__("it is kept in an envelope, with a version or an expiry")


class BoundCodec(ABC):
    """A codec for the values of one type.

    A value goes to the storage in two steps. ``encode`` makes bytes of it, the same ones for the
    same value, by which an unchanged session is recognised; ``seal`` makes what is stored of
    them. On the way back ``unseal`` comes first, then ``decode``. A codec of your own needs only
    ``encode`` and ``decode``: sealing leaves bytes as they are unless told otherwise.

    All methods take the ``key`` under which the storage keeps the value, prefix included, and
    raise `CodecError` for what they refuse.
    """

    is_canonical: bool = False
    """Whether the same value has the same bytes however it was made, so that bytes that differ
    from those of the loaded value always are a change. Where they needn't be, `is_same` is asked.
    """

    @abstractmethod
    def encode(self, value: Any, key: str) -> bytes:
        """Make bytes of the value stored under ``key``. Raises `CodecError`."""

    @abstractmethod
    def decode(self, data: bytes, key: str) -> Any:
        """Make a value of the bytes found under ``key``. Raises `CodecError`.

        Of an `Envelope` where another type was asked for, raises `EnvelopeFound`: a type that has
        a default for everything would take it for an empty value.
        """

    def seal(self, encoded: bytes, key: str) -> bytes:  # noqa: ARG002 - for those that need it
        """Make what is stored of ``encoded``: compress it, encrypt it. Raises `CodecError`.

        Called for what is about to be written, and for nothing else. May give other bytes each
        time.
        """
        return encoded

    def unseal(self, stored: bytes, key: str) -> bytes:  # noqa: ARG002
        """Make the encoded bytes again of what `seal` made for ``key``. Raises `CodecError`."""
        return stored

    def is_sealed_as_now(self, stored: bytes) -> bool:  # noqa: ARG002
        """Whether ``stored`` is sealed in the way in which `seal` would do it today.

        It isn't, say, where another key is used by now. It is read all the same, and sealed in
        today's way when it is written again.
        """
        return True

    def is_canonical_form(self, encoded: bytes) -> bool:  # noqa: ARG002
        """Whether it is certain that what is decoded of ``encoded`` is encoded as it again.

        Where it isn't, that is tried. Asked of a codec that ``is_canonical`` only.
        """
        return False

    def is_same(self, value: Any, encoded: bytes, stored: bytes, key: str) -> bool:  # noqa: ARG002
        """Whether ``value``, encoded as ``encoded``, is what the unsealed ``stored`` stand for.

        Asked where these differ: equal values may have other bytes, as another writer's spacing.
        """
        return encoded == self.encode(self.decode(stored, key), key)

    def check(self, value: Any, encoded: bytes, key: str) -> None:
        """Make sure that ``encoded``, made of ``value``, will load as the same value.

        Called once before bytes are stored, never for a session that didn't change. Raises
        `CodecError` with the path of the first value that would come back as something else.
        """
        try:
            back = self.decode(encoded, key)
        except CodecError as error:
            raise CodecError(f"it would not load again ({error.reason})", error.path) from error
        refuse_differences(value, back)


def refuse_differences(value: Any, back: Any) -> None:
    """Raise `CodecError` with the first thing that ``back``, the reload of ``value``, has not."""
    try:
        found = None if alike(value, back) else next(differences(value, back), None)
    except RecursionError as error:
        raise CodecError("it is nested too deeply to be compared with its reload") from error
    except Exception as error:  # the comparisons of a user's own types may raise anything
        reason = f"comparing it with its reload raised {type(error).__name__}: {error}"
        raise CodecError(reason) from error
    if found is not None:
        path, reason = found
        raise CodecError(reason, path)


class Codec(ABC):
    """The ``codec`` option: how sessions are written down."""

    @abstractmethod
    def bind(self, data_type: Any) -> BoundCodec:
        """Make the codec for one type; raises `ConfigurationError` for one it can't keep.

        Beside the type of the session it is asked for ``Any`` and for `Envelope` of both, in
        which sessions with a version are kept.
        """
