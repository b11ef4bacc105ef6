"""How a session lies in a file: where it stands, what it is called, and what is in it.

Both layouts have one file per session, in sub-folders named after the last two characters. They
are pure: `gramkeep.storages.file` does the reading and writing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from typing import Final, NamedTuple

import msgspec

from gramkeep.errors import ConfigurationError
from gramkeep.storages.grammy_text import compact, packed, unpacked

SUFFIX: Final = ".json"


class Stored(NamedTuple):
    """What a file holds: the expiry in milliseconds since the epoch, the key if it is written."""

    value: bytes
    expires_at: int | None = None
    key: str | None = None


class Layout(ABC):
    """One way to keep sessions in files. ``storage`` is how errors call the storage."""

    def __init__(self, storage: str) -> None:
        self.storage = storage

    @abstractmethod
    def place(self, key: str) -> tuple[str, str]:
        """Name the sub-folder and the file. Raises `ConfigurationError` if there can't be one."""

    @abstractmethod
    def is_session(self, folder: str, name: str) -> bool:
        """Whether a session's file could be called so; all others are somebody else's."""

    @abstractmethod
    def key_in(self, name: str) -> str | None:
        """Give the key that a session's file is named after, ``None`` if it stands inside."""

    @abstractmethod
    def pack(self, key: str, value: bytes, expires_at: int | None) -> bytes:
        """Make the content of a file. Raises `SessionEncodeError` for what can't be kept."""

    @abstractmethod
    def unpack(self, content: bytes) -> Stored:
        """Take the content of a file apart. Raises `ValueError` if it is damaged."""


# Gramkeep's own.

HEADER: Final = b"#gramkeep "  # JSON has no #, and a value that begins like this gets a header too
_LONGEST: Final = 120  # characters of a name: some encrypting file systems allow no more than 143
_BEGINNING: Final = 48  # of a longer key, for human eyes
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_NAME: Final = re.compile(r"(?:[a-z0-9_,-]|%[0-9a-f]{2})+|%|[a-z0-9_,%-]+~[0-9a-f]{64}")
# Names that Windows takes for devices, with any suffix.
_DEVICES: Final = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]")


class GramkeepLayout(Layout):
    """Any key, any bytes; names that every file system keeps apart.

    Lower-case letters, digits, ``_`` and ``-`` stand for themselves, ``,`` for the colon, and all
    other bytes of the key's UTF-8 as ``%`` and two hexadecimal digits. There are no capitals in
    names, as some file systems don't tell them apart, and nothing beyond ASCII, as some have
    their own mind about accents. What would be too long is cut, and ends in ``~`` and the key's
    SHA-256 instead; the key itself then stands in the file.

    A file is the value. Where there is more to say, a line comes first: ``#gramkeep`` and a JSON
    object, with ``expires_at`` or ``key`` or both.
    """

    def place(self, key: str) -> tuple[str, str]:
        stem = _stem(key)
        return stem[-2:], stem + SUFFIX

    def is_session(self, folder: str, name: str) -> bool:
        stem = name.removesuffix(SUFFIX)
        if stem == name or folder != stem[-2:] or _NAME.fullmatch(stem) is None:
            return False
        try:
            key = self.key_in(name)
        except UnicodeDecodeError:
            return False
        return key is None or _stem(key) == stem

    def key_in(self, name: str) -> str | None:
        stem = name.removesuffix(SUFFIX)
        if "~" in stem:
            return None
        if stem == "%":
            return ""
        raw = re.sub("%(..)", lambda code: chr(int(code[1], 16)), stem.replace(",", ":"))
        return raw.encode("latin-1").decode("utf-8", "surrogatepass")

    def pack(self, key: str, value: bytes, expires_at: int | None) -> bytes:
        header: dict[str, object] = {}
        if expires_at is not None:
            header["expires_at"] = expires_at
        if "~" in _stem(key):
            header["key"] = key
        if not header and not value.startswith(HEADER):
            return value
        return HEADER + json.dumps(header).encode() + b"\n" + value

    def unpack(self, content: bytes) -> Stored:
        if not content.startswith(HEADER):
            return Stored(content)
        line, end, value = content[len(HEADER) :].partition(b"\n")
        header = json.loads(line) if end else None
        match header:
            case dict() if header.keys() <= {"expires_at", "key"}:
                expires_at, key = header.get("expires_at"), header.get("key")
                if type(expires_at) in (int, type(None)) and isinstance(key, str | None):
                    return Stored(value, expires_at, key)
        text = f"its first line, {content[:80]!r}, is not of this version of gramkeep"
        raise ValueError(text)


def _stem(key: str) -> str:
    raw = key.encode("utf-8", "surrogatepass")
    stem = "".join(
        chr(byte) if byte in _PLAIN else "," if byte == ord(":") else f"%{byte:02x}" for byte in raw
    )
    if _DEVICES.fullmatch(stem):
        stem = f"%{raw[0]:02x}{stem[1:]}"
    if len(stem) > _LONGEST:
        stem = f"{stem[:_BEGINNING]}~{hashlib.sha256(raw).hexdigest()}"
    return stem or "%"


# grammY's.

_LONGEST_NAME: Final = 255  # bytes, on all common file systems
_FORBIDDEN: Final = '/\0\\:*?"<>|' if os.name == "nt" else "/\0"


class GrammyLayout(Layout):
    """The files of ``@grammyjs/storage-file`` 2.6: ``<last two characters>/<key>.json``.

    JSON only, indented by tabs as ``JSON.stringify`` does it. The expiry is kept as by grammY's
    ``enhanceStorage``: ``{"v": version, "__d": data, "e": expiry}``.
    """

    def place(self, key: str) -> tuple[str, str]:
        # JavaScript counts in UTF-16, and Node writes half a character as U+FFFD.
        folder = key.encode("utf-16-le", "surrogatepass")[-4:].decode("utf-16-le", "replace")
        name = key + SUFFIX
        if not key or folder in {".", ".."} or any(character in key for character in _FORBIDDEN):
            problem = "would lead out of its place there"
        elif any("\ud800" <= character <= "\udfff" for character in key):
            problem = "is no valid Unicode"
        elif len(name.encode()) > _LONGEST_NAME:
            problem = "is too long for the name of a file"
        else:
            return folder, name
        text = (
            f"key {key!r} can't be kept in {self.storage} with layout='grammy', which names files "
            f"after keys as they are: it {problem}. Use other keys, or the layout 'gramkeep'"
        )
        raise ConfigurationError(text, key=key, storage=self.storage)

    def is_session(self, folder: str, name: str) -> bool:
        try:
            return name.endswith(SUFFIX) and self.place(name[: -len(SUFFIX)]) == (folder, name)
        except ConfigurationError:
            return False

    def key_in(self, name: str) -> str | None:
        return name.removesuffix(SUFFIX)

    def pack(self, key: str, value: bytes, expires_at: int | None) -> bytes:
        value = packed(self.storage, key, value, expires_at)
        # What isn't compact is another codec's, and is to come back as it is.
        return _indented(value) if compact(value) == value else value

    def unpack(self, content: bytes) -> Stored:
        bare = compact(content)
        is_of_grammy = bare is not None and _indented(bare) == content
        return Stored(*unpacked(bare if bare is not None and is_of_grammy else content))


def _indented(compact: bytes) -> bytes:
    spaced = msgspec.json.format(compact, indent=1)
    return re.sub(rb"\n +", lambda spaces: b"\n" + b"\t" * (len(spaces[0]) - 1), spaced)
