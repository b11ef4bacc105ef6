"""The package as its users import it, and how much of it there is for each framework."""

import ast
import importlib
import io
import pkgutil
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

import gramkeep

MODULES = pkgutil.walk_packages(gramkeep.__path__, "gramkeep.")
HEAVY = (
    *("aiogram", "telegram", "aiohttp", "cryptography", "pydantic", "pytest", "rich", "textual"),
    *("sqlite3", "telebot", "telethon", "pyrogram"),
    *("redis", "hiredis", "asyncpg", "asyncmy", "pymongo", "obstore", "key_value"),
)

INTEGRATIONS = Path(gramkeep.__path__[0]) / "integrations"
MOST_LINES = 250  # of one integration; what two of them share stands beside them
FILES_OF = {
    "aiogram": [INTEGRATIONS / "aiogram.py"],
    **{
        package.parent.name: sorted(package.parent.glob("*.py"))
        for package in INTEGRATIONS.glob("*/__init__.py")
    },
}
# Two in one package: for bots with coroutines, with what both need, and for bots with threads.
FILES_OF["telebot, threaded"] = [each for each in FILES_OF["telebot"] if "thread" in each.name]
FILES_OF["telebot"] = [each for each in FILES_OF["telebot"] if "thread" not in each.name]


def lines_of_code(source: str) -> int:
    """Count lines, without docstrings, comments and blank ones."""
    said: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            said.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    done = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.string.strip() and token.type != tokenize.COMMENT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(done - said)


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


def test_lines_of_code_are_those_that_do_something():
    source = '''
        """Says what it is."""

        # And why.
        def add(
            a, b
        ):
            """Add."""
            return """
            two lines""" + b  # more
    '''
    assert lines_of_code(textwrap.dedent(source)) == 5


@pytest.mark.parametrize("framework", FILES_OF)
def test_no_integration_has_over_250_lines_of_code(framework):
    files = FILES_OF[framework]
    assert 0 < sum(lines_of_code(file.read_text("utf-8")) for file in files) <= MOST_LINES
