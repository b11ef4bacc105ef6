"""Typed, persistent sessions for Telegram bots that lose no update."""

from gramkeep.codec import (
    BoundCodec,
    Codec,
    CodecError,
    CompressedCodec,
    EncryptedCodec,
    JSONCodec,
    MessagePackCodec,
)
from gramkeep.enhance import enhance_storage
from gramkeep.errors import (
    ConfigurationError,
    GramkeepError,
    NewerSessionVersion,
    NoSessionKey,
    SessionBusy,
    SessionClosed,
    SessionConflict,
    SessionDecodeError,
    SessionEncodeError,
    SessionNotLoaded,
    SessionTooLarge,
    StorageUnavailable,
)
from gramkeep.handle import Session
from gramkeep.manager import Sessions
from gramkeep.middleware import LazySessionFlavor, SessionFlavor, lazy_session, session
from gramkeep.options import SessionOptions
from gramkeep.origin import Origin, per_chat, per_topic, per_user, per_user_in_chat
from gramkeep.storage import Storage, StorageAdapter
from gramkeep.storages.memory import MemorySessionStorage

__all__ = [
    "BoundCodec",
    "Codec",
    "CodecError",
    "CompressedCodec",
    "ConfigurationError",
    "EncryptedCodec",
    "GramkeepError",
    "JSONCodec",
    "LazySessionFlavor",
    "MemorySessionStorage",
    "MessagePackCodec",
    "NewerSessionVersion",
    "NoSessionKey",
    "Origin",
    "Session",
    "SessionBusy",
    "SessionClosed",
    "SessionConflict",
    "SessionDecodeError",
    "SessionEncodeError",
    "SessionFlavor",
    "SessionNotLoaded",
    "SessionOptions",
    "SessionTooLarge",
    "Sessions",
    "Storage",
    "StorageAdapter",
    "StorageUnavailable",
    "enhance_storage",
    "lazy_session",
    "per_chat",
    "per_topic",
    "per_user",
    "per_user_in_chat",
    "session",
]
