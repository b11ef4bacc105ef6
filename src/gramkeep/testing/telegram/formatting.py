"""`parse_mode` HTML: tags become entities, and bad markup is refused as Telegram refuses it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from gramkeep.testing.telegram.errors import BotApiError, bad_request
from gramkeep.testing.telegram.objects import command_entities, utf16_length

if TYPE_CHECKING:
    from gramkeep.testing.telegram.objects import JSON

# https://core.telegram.org/bots/api#html-style
_KINDS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "a": "text_link",
    "tg-emoji": "custom_emoji",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
}
_NO_TAG = re.compile(r"<(?![A-Za-z/!])([^\s>]*)")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_ATTRIBUTES = {"a": ("href", "url"), "tg-emoji": ("emoji-id", "custom_emoji_id")}


def parse(text: str, parse_mode: str | None) -> tuple[str, list[JSON]]:
    """Return the text people see, and its entities; Markdown is left as it is.

    Raises `BotApiError` (400) for a mode Telegram doesn't have and for markup it can't parse.
    """
    mode = (parse_mode or "").lower()
    if mode not in {"", "html", "markdown", "markdownv2"}:
        raise bad_request("unsupported parse_mode")
    if mode != "html":
        return text, command_entities(text)
    if (bad := _NO_TAG.search(text)) is not None:  # which HTMLParser would take for text
        raise _refused(f'Unsupported start tag "{bad.group(1)}"')
    reader = _HTMLReader()
    reader.feed(text)
    reader.close()
    found = [entity for entity in reader.entities if entity["length"]]
    found += command_entities(reader.text)
    return reader.text, sorted(found, key=lambda entity: entity["offset"])


class _HTMLReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.text = ""
        self.entities: list[JSON] = []
        self._open: list[tuple[str, JSON]] = []

    def handle_data(self, data: str) -> None:
        if "<" in data:
            raise _refused("Unclosed start tag")
        self.text += data

    def handle_entityref(self, name: str) -> None:
        self.text += _NAMED.get(name, f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.text += html.unescape(f"&#{name};")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in _KINDS or (tag == "span" and given.get("class") != "tg-spoiler"):
            raise _refused(f'Unsupported start tag "{tag}"')
        entity: JSON = {"type": _KINDS[tag], "offset": utf16_length(self.text), "length": 0}
        if tag in _ATTRIBUTES:
            attribute, name = _ATTRIBUTES[tag]
            entity[name] = given.get(attribute) or ""
        language = (given.get("class") or "").removeprefix("language-")
        if tag == "code" and language and self._open and self._open[-1][0] == "pre":
            self._open[-1][1]["language"] = language  # <pre><code …> is one entity
        else:
            self.entities.append(entity)
        self._open.append((tag, entity))

    def handle_endtag(self, tag: str) -> None:
        if not self._open:
            raise _refused(f'Unexpected end tag "{tag}"')
        expected, entity = self._open.pop()
        if tag != expected:
            raise _refused(f'Unmatched end tag, expected "</{expected}>", found "</{tag}>"')
        entity["length"] = utf16_length(self.text) - entity["offset"]

    def handle_comment(self, data: str) -> None:
        raise _refused(f'Unsupported start tag "!--{data}"')

    def handle_decl(self, decl: str) -> None:
        raise _refused(f'Unsupported start tag "!{decl}"')

    def close(self) -> None:
        super().close()
        if self._open:
            tag = self._open[-1][0]
            raise _refused(f'Can\'t find end tag corresponding to start tag "{tag}"')


def _refused(why: str) -> BotApiError:
    return bad_request(f"can't parse entities: {why}")
