"""Lengths of time, as users write them and as the code counts them."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

from gramkeep.errors import ConfigurationError

Lifetime: TypeAlias = timedelta | float
"""A timedelta, or seconds."""


def positive_seconds(option: str, value: Lifetime) -> float:
    """Turn a timedelta or seconds into seconds. Raises `ConfigurationError` unless above 0."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        text = f"{option}={value!r} must be a timedelta or a number of seconds, above 0"
        raise ConfigurationError(text)
    return float(seconds)
