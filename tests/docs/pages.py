"""The pages of the documentation, and the Python code on them.

What stands in ``python`` blocks is run. Code that needs what isn't installed stands in ``py``
blocks, which look the same and are only compiled.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
HEADING_OR_CODE = re.compile(r"^## ([^\n]+)$|^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# What is said to bots that stand in sections of these names on several pages, and their answers.
PARAMETERS = (
    "Parameters",
    {
        "/count": "You have sent 1 commands",
        "/count ": "You have sent 2 commands",
        "/reset": "Forgotten",
        "/count  ": "You have sent 1 commands",
        "/ping": "pong",
    },
)
AFTER_SAVING = ("Answer after saving", {"/pay": "100 is noted", "/pay ": "200 is noted"})
SEVERAL_KINDS = (
    "Several kinds",
    {"x": "1 in this chat, 1 from you", "y": "2 in this chat, 2 from you"},
)
LAZY_SESSIONS = ("Lazy sessions", {"x": "not counted", "count": "1", "count ": "not counted"})


class Block(NamedTuple):
    """One piece of Python code on a page, and the section it stands in."""

    section: str
    line: int
    code: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    section = ""
    for found in HEADING_OR_CODE.finditer(text):
        if found[1] is not None:
            section = found[1]
        else:
            yield Block(section, text.count("\n", 0, found.start(2)), found[2])
