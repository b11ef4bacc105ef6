"""The package as its users import it."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import gramkeep

MODULES = pkgutil.walk_packages(gramkeep.__path__, "gramkeep.")
HEAVY = (
    *("aiogram", "telegram", "aiohttp", "cryptography", "pydantic", "pytest", "rich", "textual"),
    *("sqlite3", "telebot", "telethon", "pyrogram"),
    *("redis", "hiredis", "asyncpg", "asyncmy", "pymongo", "obstore", "key_value"),
)


def test_importing_the_package_imports_no_driver_and_no_framework():
    code = f"import sys, gramkeep; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", [module.name for module in MODULES if module.name != "gramkeep.__main__"]
)
def test_every_module_can_be_imported_and_has_the_names_it_lists(name):
    module = importlib.import_module(name)
    assert module.__doc__ or name.endswith((".storages", ".integrations"))
    for public in getattr(module, "__all__", ()):
        assert getattr(module, public) is not None


def test_the_public_names_are_sorted_and_each_stands_once():
    assert gramkeep.__all__ == sorted(set(gramkeep.__all__))
