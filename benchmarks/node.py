"""Node.js, and the packages of the peers that run on it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
QUIETLY: Final = ("--no-package-lock", "--no-audit", "--no-fund", "--silent")
OLDEST: Final = (20, 19)  # that all peers run on
OLDEST_WITH_SQLITE: Final = (22, 13)  # the first whose node:sqlite needs no flag


class NoNode(Exception):
    """There is no Node.js that would do; the text says which one is needed."""


def prepare() -> None:
    """Install the peers, and Node.js before them where it is missing.

    Raises `NoNode`, and `subprocess.CalledProcessError` where npm fails.
    """
    if shutil.which("npm") is None or shutil.which("node") is None:
        _install_node()
    if any(_installed(name) != version for name, version in _pinned("dependencies").items()):
        _run("npm", "install", "--prefix", str(HERE), *QUIETLY)
    program(OLDEST)


def program(oldest: tuple[int, ...]) -> str:
    """Give a Node.js of ``oldest`` or newer: the one that is installed, or else npm's.

    Raises `NoNode`.
    """
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    of_npm = HERE / f"node_modules/node-linux-{machine}/bin/node"
    for node in ("node", str(of_npm)):
        if shutil.which(node) and _version(node) >= oldest:
            return node
    raise NoNode(f"it needs Node.js {_text(oldest)} or newer")


def _pinned(group: str) -> dict[str, str]:
    versions: dict[str, str] = json.loads((HERE / "package.json").read_text("utf-8"))[group]
    return versions


def _installed(package: str) -> str | None:
    manifest = HERE / "node_modules" / package / "package.json"
    if not manifest.exists():
        return None
    version: str = json.loads(manifest.read_text("utf-8"))["version"]
    return version


def _install_node() -> None:
    if shutil.which("apt-get") is None:
        raise NoNode(f"it needs Node.js {_text(OLDEST)} or newer, with npm")
    as_root = [] if os.getuid() == 0 else ["sudo"]
    _run(*as_root, "apt-get", "update", "-q")
    _run(*as_root, "apt-get", "install", "-q", "-y", "nodejs", "npm")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=sys.stderr)  # noqa: S603 - no words but our own


def _version(node: str) -> tuple[int, ...]:
    command = [node, "--print", "process.versions.node"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return tuple(int(part) for part in answer.stdout.strip().split("."))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
