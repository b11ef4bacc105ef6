"""Which process holds a lease, told so that others on the machine see when it is dead.

Linux says so under ``/proc``: see proc_pid_stat(5) and pid_namespaces(7). Elsewhere nobody is known
to be dead, and leases end by their time alone.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PROCESSES = Path("/proc")


def this_process() -> str | None:
    """Name this process for others on the machine; ``None`` where they couldn't look it up."""
    return _name_of(os.getpid())


def is_dead(process: str) -> bool:
    """Whether the process of that name is known to have ended.

    One in another PID namespace, that of a container, can't be seen from here: it isn't known.
    """
    namespace, pid, started = process.split()
    return namespace == _namespace(os.getpid()) and _started(int(pid)) != started


@cache
def _name_of(pid: int) -> str | None:
    namespace, started = _namespace(pid), _started(pid)
    return None if namespace is None or started is None else f"{namespace} {pid} {started}"


@cache
def _namespace(pid: int) -> str | None:
    try:
        return str((_PROCESSES / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Say when a process started, which tells it from a later one of its number."""
    try:
        status = (_PROCESSES / str(pid) / "stat").read_text("latin-1")
    except OSError:
        return None
    state, *rest = status.rpartition(")")[2].split()  # before it stands the program's name
    return None if state in "ZX" else rest[18]
