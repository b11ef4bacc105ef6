"""Runs the tests with the lowest and with the newest versions of what gramkeep works with.

``make versions`` runs all of it, ``make versions NOX_ARGS="-k redis"`` what concerns Redis.

Which versions users may have is said by the bounds in ``pyproject.toml``, and nowhere else:
``lowest`` tests each extra with exactly those, ``newest`` with the newest that are published.
Everything around them is as ``requirements/dev.txt`` pins it, unless they need another version.
"""

import shlex

import nox
from packaging.requirements import Requirement

PINS = "requirements/dev.txt"

# What is tested of each extra, as arguments for pytest. Every extra has a line here.
TESTS = {
    "aiogram": "tests/integrations tests/testing tests/examples tests/docs -k aiogram",
    "ptb": "tests/integrations tests/examples tests/docs -k 'ptb or python-telegram-bot'",
    "telebot": "tests/integrations tests/examples tests/docs -k telebot",
    "telethon": "tests/integrations tests/examples tests/docs -k telethon",
    "pyrogram": "tests/integrations tests/examples tests/docs -k pyrogram",
    "redis": "tests/adapters tests/storages tests/processes -k 'redis or valkey'",
    "postgres": "tests/adapters tests/storages tests/processes -k 'postgres or psql or pgbouncer'",
    "mysql": "tests/adapters tests/storages tests/processes -k 'mysql or mariadb'",
    "mongodb": "tests/adapters tests/storages tests/processes -k mongodb",
    "s3": "tests/adapters tests/storages tests/processes -k s3",
    "key-value": "tests/adapters tests/storages -k key_value",
    "encryption": "tests/codecs -k encrypted",
    "pydantic": "tests/codecs -k pydantic",
    "testing": "tests/testing tests/storages/test_custom_guide.py",
    "demo": "tests/cli",
    "none": "tests/core tests/codecs",
}

_project = nox.project.load_toml("pyproject.toml")["project"]
REQUIREMENTS = {"none": _project["dependencies"], **_project["optional-dependencies"]}
EXTRAS = [nox.param(extra, TESTS[extra], id=extra) for extra in REQUIREMENTS]

nox.options.default_venv_backend = "uv|venv"
nox.options.download_python = "never"
nox.options.sessions = ["lowest", "newest", "uvloop"]
nox.options.stop_on_first_error = False


@nox.session
@nox.parametrize("extra, tests", EXTRAS)
def lowest(session: nox.Session, extra: str, tests: str) -> None:
    """Test an extra with the lowest versions that it allows; ``none`` is what needs no extra."""
    _prepare(session)
    session.install(*(f"{each.name}=={_bound(each)}" for each in _requirements(extra)))
    _test(session, tests)


@nox.session
@nox.parametrize("extra, tests", EXTRAS)
def newest(session: nox.Session, extra: str, tests: str) -> None:
    """Test an extra with the newest versions that it allows."""
    _prepare(session)
    session.install("--upgrade", *map(str, _requirements(extra)))
    _test(session, tests)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def python(session: nox.Session) -> None:
    """Test what needs no extra with another version of Python, if the machine has it."""
    _prepare(session)
    _test(session, TESTS["none"])


@nox.session
def uvloop(session: nox.Session) -> None:
    """Test storages on uvloop."""
    _prepare(session)
    session.env["GRAMKEEP_TEST_LOOP"] = "uvloop"
    _test(session, "tests/core tests/storages tests/adapters")


def _prepare(session: nox.Session) -> None:
    session.install("--requirement", PINS)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")


def _test(session: nox.Session, tests: str) -> None:
    # uv compiles nothing, and each program that a test starts would compile a whole framework.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.run("pytest", *shlex.split(tests), *session.posargs)


def _requirements(extra: str) -> list[Requirement]:
    """Give what an extra asks for, and in place of other extras what these ask for."""
    found = []
    for requirement in map(Requirement, REQUIREMENTS[extra]):
        if requirement.name == _project["name"]:
            found += [each for other in requirement.extras for each in _requirements(other)]
        else:
            found.append(requirement)
    return found


def _bound(requirement: Requirement) -> str:
    (bound,) = (each.version for each in requirement.specifier if each.operator == ">=")
    return bound
