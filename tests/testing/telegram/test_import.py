"""`gramkeep.testing` imports nothing before it is asked for."""

import subprocess
import sys

import pytest

import gramkeep.testing
import gramkeep.testing.telegram

BLOCK = "import sys; sys.modules['aiohttp'] = None; import gramkeep.testing as t; "


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def test_importing_the_package_needs_no_driver():
    code = "import sys, gramkeep.testing; print({'aiohttp', 'pytest'} & set(sys.modules))"
    assert run(code).strip() == "set()"


def test_a_missing_driver_names_the_extra_that_has_it():
    assert 'TelegramServer needs aiohttp: pip install "gramkeep[testing]"' in run(
        BLOCK + "t.TelegramServer"
    )


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Telepathy'"):
        _ = gramkeep.testing.Telepathy


def test_every_public_name_is_listed_and_there():
    elsewhere = gramkeep.testing._MODULES
    names = [name for name in gramkeep.testing.__all__ if name not in elsewhere]
    assert names == sorted(gramkeep.testing.telegram.__all__)
    assert set(names) <= set(dir(gramkeep.testing))
    for name in names:
        assert getattr(gramkeep.testing, name) is getattr(gramkeep.testing.telegram, name)
