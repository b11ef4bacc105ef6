"""The Python code of the documentation runs, and does what the text around it says."""

import asyncio
import json
import logging
import re
import sqlite3
from contextlib import closing

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.fsm.context import FSMContext
from conftest_of_docs import ROOT, blocks

from gramkeep import SessionClosed, StorageUnavailable
from gramkeep.testing import TelegramServer

TESTED_ELSEWHERE = {
    "docs/testing.md": "tests/testing/telegram/test_guide.py",
    "docs/storages/custom.md": "tests/storages/test_custom_guide.py",
    "docs/errors.md": "tests/docs/test_errors.py",
}
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    if any(blocks(path))
]
