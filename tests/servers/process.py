"""One server process: started in a folder of its own, awaited until it answers, and stopped."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

S = TypeVar("S", bound="OwnServer")

STARTS_WITHIN = 60.0  # seconds
STOPS_WITHIN = 20.0
GETS_THERE_WITHIN = 60.0
MEMORY = Path("/dev/shm")  # Linux's file system that no disk is behind
ENOUGH_MEMORY = 1 << 30  # bytes, of which a server takes a few hundredths
PORTS = range(10_000, 32_768)  # below those that Linux gives to outgoing connections
SHARES = 16  # of the ports; each has its ports' neighbours 10,000 higher as well


class ServerFailedToStart(Exception):
    """The server ended, or didn't answer in time; the text has the end of its log."""


class WaitedInVain(Exception):
    """Servers that run didn't get to where they should be; the text says how they are instead."""


class ServerProcess:
    """A server that this test run owns; killed with all the processes it made.

    ``is_ready()`` tells whether it answers; an `OSError` means not yet. ``user`` is who runs it
    where this process is root, for servers that refuse to run as root.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        *,
        is_ready: Callable[[], bool],
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = [str(part) for part in command]
        self.folder = folder
        self.log = folder / f"{Path(self.command[0]).name}.log"
        self._is_ready = is_ready
        self._user = user if os.getuid() == 0 else None
        self._environment = {**os.environ, **(environment or {})}
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped or killed since."""
        return self._process is not None

    def start(self) -> None:
        """Start, or start again on the same data, and return when the server answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                start_new_session=True,
            )
        try:
            self._wait_for_answer(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask the server to end, and make it end if it doesn't. Idempotent."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOPS_WITHIN)
        self.kill()

    def kill(self) -> None:
        """End the server and its children by SIGKILL. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def _wait_for_answer(self, process: subprocess.Popen[bytes]) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                raise ServerFailedToStart(f"{self.command}: it ended\n{self.end_of_log()}")
            return self._is_ready()

        wait_until(answers, f"{self.command}", within=STARTS_WITHIN, tell=self.end_of_log)


class OwnServer:
    """A server of the tests' own, in a folder of its own: started, stopped and killed at will."""

    folder: Path
    port: int
    process: ServerProcess

    @property
    def is_running(self) -> bool:
        return self.process.is_running

    def start(self) -> Self:
        """Start, or start again on the same data, and return when the server answers."""
        self.process.start()
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        """End the server and all its processes by SIGKILL.

        What they had handed to the kernel stays, on the disk or not: this is no power cut.
        """
        self.process.kill()

    def restart(self) -> None:
        """Kill the server, and start it again on the same data."""
        self.kill()
        self.start()

    def remove(self) -> None:
        """Kill the server and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Start a server, and remove it with its data in the end."""
    try:
        yield server.start()
    finally:
        server.remove()


def free_port(*, neighbour: int = 0) -> int:
    """Find a TCP port on loopback that nobody listens on now, and that it never gave before.

    Of `PORTS`: of the others, an outgoing connection may take one before the server gets there.
    Each worker of pytest-xdist has its own of these, so that no two servers are given the same.
    A server may need the port that is so much higher, its ``neighbour``, as well.
    """
    for port in _ports_to_try:
        both = {port, port + neighbour}
        if not both.isdisjoint(_given) or port + neighbour not in PORTS:
            continue
        with ExitStack() as probes, suppress(OSError):
            for each in both:
                probes.enter_context(socket.socket()).bind(("127.0.0.1", each))
            _given.update(both)
            return port
    raise LookupError("all ports were given away")


def _ports_in_any_order() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = PORTS[worker % SHARES :: SHARES]
    return iter(random.sample(ports, len(ports)))


_ports_to_try = _ports_in_any_order()
_given: set[int] = set()


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on the port; raises `OSError` if not."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def wait_until(
    is_so: Callable[[], bool],
    what: str,
    *,
    within: float = GETS_THERE_WITHIN,
    tell: Callable[[], str] = str,
) -> None:
    """Ask until it is so, for ``within`` seconds; an `OSError` means not yet.

    Raises `WaitedInVain`, whose text ends with what ``tell`` gives.
    """
    deadline = time.monotonic() + within
    while not _is_so(is_so):
        if time.monotonic() > deadline:
            raise WaitedInVain(f"waited {within:g} s in vain for {what}\n{tell()}".rstrip())
        time.sleep(0.02)


def _is_so(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:
        return False


def server_folder(name: str, *, user: str | None = None, in_memory: bool = False) -> Path:
    """Make a folder that ``user`` may use where this process is root; its maker removes it.

    Not pytest's own, which nobody but root may enter, and whose names are long for sockets. Asked
    for one ``in_memory``, it makes one there if there is room: for servers that others believe to
    be dead while the disk holds them up.
    """
    there = in_memory and os.access(MEMORY, os.W_OK)
    place = MEMORY if there and shutil.disk_usage(MEMORY).free > ENOUGH_MEMORY else None
    folder = Path(tempfile.mkdtemp(prefix=f"gramkeep-{name}-", dir=place))
    if user is not None and os.getuid() == 0:
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    return folder


def program(name: str, *places: str) -> str:
    """Find a server's program on the path, or in ``places`` where Debian puts it.

    Raises `FileNotFoundError`: a test that needs a server fails without it, in CI and elsewhere.
    """
    found = shutil.which(name) or next(
        (str(path) for place in places for path in sorted(Path("/").glob(f"{place}/{name}"))), None
    )
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; `make test` installs it on Debian")
    return found
