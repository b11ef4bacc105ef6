"""A disk that is full: what was acknowledged stays, and what can't be written says so."""

import os
import subprocess
from dataclasses import dataclass, field

import pytest

from gramkeep import Sessions, StorageUnavailable

DISK = 1024 * 1024


@dataclass
class Diary:
    days: list[str] = field(default_factory=list)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of a megabyte; mounting one takes root, or sudo."""
    place = tmp_path / "disk"
    place.mkdir()
    as_root = [] if os.getuid() == 0 else ["sudo", "--non-interactive"]
    options = f"size={DISK},uid={os.getuid()}"
    subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    yield place
    subprocess.run([*as_root, "umount", "--lazy", place], check=True)


@pytest.mark.parametrize("url", ["sqlite:///{}/bot.db", "file://{}/sessions"])
async def test_a_full_disk_loses_nothing_that_was_acknowledged(small_disk, url):
    url = url.format(small_disk)
    ballast = small_disk / "ballast"
    acknowledged = {"1": 0, "2": 0}

    async def write(key: str) -> None:
        async with sessions.open(key) as session:
            session.data.days.append("x" * 2000)
        acknowledged[key] += 1

    async with Sessions(initial=Diary, storage=url) as sessions:
        await write("1")
        await write("2")
        with (
            ballast.open("wb", buffering=0) as file,
            pytest.raises(OSError, match="No space"),
        ):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StorageUnavailable, match=r"full|No space") as caught:
            for _ in range(100):
                await write("1")
        assert caught.value.key == "1"
        with pytest.raises(StorageUnavailable):
            for _ in range(100):
                async with sessions.open("3") as session:
                    session.data.days.append("x" * 5000)
        for key, count in acknowledged.items():
            diary = await sessions.get(key)
            assert diary is not None
            assert len(diary.days) == count
        assert await sessions.get("3") is None

        ballast.unlink()
        await write("1")
        await write("2")
    async with Sessions(initial=Diary, storage=url) as sessions:
        assert {key: len(diary.days) async for key, diary in sessions.items()} == acknowledged
