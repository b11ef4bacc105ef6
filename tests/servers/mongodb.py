"""MongoDB for tests: SecantusDB, which speaks MongoDB's wire protocol and comes from PyPI.

Where GRAMKEEP_TEST_MONGODB_URL names a server of the user's own, the tests use that one, in
databases of theirs; all but those that must stop the server.
"""

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pymongo import MongoClient

from .process import (
    OwnServer,
    ServerProcess,
    accepts_connections,
    free_port,
    running,
    server_folder,
)

URL_VARIABLE = "GRAMKEEP_TEST_MONGODB_URL"


class MongoDB(OwnServer):
    """A server on loopback, a replica set of one. ``options`` go to its command line."""

    def __init__(self, *options: str) -> None:
        self.folder = server_folder("mongodb")
        self.port = free_port()
        self.process = ServerProcess(
            [
                sys.executable,
                Path(__file__).with_name("secantusdb.py"),
                f"--port={self.port}",
                f"--storage-path={self.folder / 'data'}",
                "--cache-size=256M",  # with less, values of 100 KB make it stall
                "--log-level=WARNING",
                *options,
            ],
            self.folder,
            is_ready=lambda: accepts_connections(self.port),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def url(self, database: str = "", *, user: str = "") -> str:
        return f"mongodb://{user and user + '@'}127.0.0.1:{self.port}/{database}"

    def options(self, *options: str) -> None:
        """Add to the command line from the next start on."""
        self.process.command += options

    def drop(self, database: str) -> None:
        _drop(self.url(), database)


class GivenServer:
    """A server of the user's own."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def url(self, database: str = "") -> str:
        return self._url._replace(path=f"/{database}").geturl()

    def drop(self, database: str) -> None:
        _drop(self.url(), database)


@contextmanager
def running_server(*options: str) -> Iterator[MongoDB]:
    """Hold a server of one's own, which may be killed."""
    with running(MongoDB(*options)) as server:
        yield server
    # PyMongo may leave a socket that is cut while it is opened to the garbage collector, which
    # would complain in another test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextmanager
def shared_server() -> Iterator[MongoDB | GivenServer]:
    """Hold a server that tests only use: the user's, or else one of this test run."""
    if given := os.environ.get(URL_VARIABLE):
        yield GivenServer(given)
    else:
        with running_server() as server:
            yield server


def _drop(url: str, database: str) -> None:
    with MongoClient(url, timeoutMS=30_000) as client:
        client.drop_database(database)
