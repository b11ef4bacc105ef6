"""The options behind the ``?`` of a storage URL."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gramkeep.errors import ConfigurationError


def url_options(url: str, known: AbstractSet[str]) -> dict[str, Any]:
    """Read the options of a URL; ``busy_timeout`` is in seconds.

    Raises `ConfigurationError` for one that isn't ``known``, or of the wrong form.
    """
    query = urlsplit(url, allow_fragments=False).query
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := options.keys() - known:
        text = f"storage URL {url!r}: unknown option {', '.join(sorted(unknown))}"
        raise ConfigurationError(text)
    if "busy_timeout" in options:
        try:
            options["busy_timeout"] = float(options["busy_timeout"])
        except ValueError:
            text = f"storage URL {url!r}: busy_timeout must be a number of seconds"
            raise ConfigurationError(text) from None
    return options
