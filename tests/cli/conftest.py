import pytest


@pytest.fixture
def replace_aiogram(tmp_path, monkeypatch):
    """Make bots that are started from here on run this code when they import aiogram."""

    def replace(code):
        package = tmp_path / "replaced" / "aiogram"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))

    return replace


@pytest.fixture
def broken_aiogram(replace_aiogram):
    replace_aiogram('raise RuntimeError("broken on purpose")\n')
