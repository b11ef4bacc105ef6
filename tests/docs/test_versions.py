"""The versions that pages name are the bounds in pyproject.toml, which `make versions` tests."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from .pages import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
NAMED = re.compile(r'For (\S+) ([\d.]+) and newer: `pip install "gramkeep\[(\w+)\]"`')
PAGES = sorted((ROOT / "docs/integrations").glob("*.md"))
CLAIMS = [claim for page in PAGES for claim in NAMED.findall(page.read_text("utf-8"))]


@pytest.mark.parametrize(("name", "version", "extra"), CLAIMS)
def test_the_lowest_version_that_a_page_names_is_the_one_its_extra_allows(name, version, extra):
    bounds = {each.name: str(each.specifier) for each in map(Requirement, EXTRAS[extra])}
    assert bounds[name] == f">={version}"


def test_the_pages_of_frameworks_name_their_lowest_versions():
    assert {"aiogram", "ptb", "telebot"} <= {extra for _, _, extra in CLAIMS}
