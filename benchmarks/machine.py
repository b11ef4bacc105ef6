"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from pathlib import Path

from servers.process import program


def machine() -> dict[str, str]:
    """Describe this machine, and the versions of what all contenders share."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} of its threads",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "memory": f"{_memory():.0f} GB",
        "system": f"{_system()}, Linux {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Redis": _version("redis-server"),
        "PostgreSQL": _version("postgres", "usr/lib/postgresql/*/bin"),
        "MariaDB": _version("mariadbd", "usr/sbin"),
        "SQLite": f"{sqlite3.sqlite_version} in Python",
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> float:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) / 1024 / 1024 if found else 0.0


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())


def _text(path: str) -> str:
    return Path(path).read_text("utf-8") if Path(path).exists() else ""


def _version(name: str, *places: str) -> str:
    try:
        command = [program(name, *places), "--version"]
    except FileNotFoundError:
        return "none"
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout)
    return found[0] if found else answer.stdout.strip()
