"""What the documentation points at is there."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OF_THE_REPOSITORY = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*OF_THE_REPOSITORY, *sorted(DOCS.rglob("*.md"))]

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES]
)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, which GitHub and MkDocs make alike of plain words."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


@each_page
def test_links_lead_to_files_and_headings_that_are_there(page):
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_pages_of_the_site_link_only_within_the_site(page):
    if page in OF_THE_REPOSITORY:
        return
    for link in links(page):
        if not link.startswith(("https://", "#")):
            assert (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), link


def test_every_page_stands_in_the_menu_and_every_guide_in_the_readme():
    menu = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(menu) == sorted(pages)
    readme = {link.removeprefix("docs/") for link in links(ROOT / "README.md")}
    assert "errors.md" in pages
    assert {page for page in pages if not page.startswith("reference/")} - {"index.md"} <= readme


def test_the_commands_that_the_documentation_names_are_in_the_makefile():
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"\bmake ([a-z]+)(?=[ `\n])`?", code_of(page))) <= made, page


def code_of(page: Path) -> str:
    text = page.read_text("utf-8")
    spans = re.findall(r"`([^`\n]+)`", text)
    return "\n".join([*spans, *re.findall(r"```console\n(.*?)```", text, re.DOTALL)]) + "\n"


def test_the_layers_are_those_that_the_import_linter_holds():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    block = "\n".join(["```text", *contract["layers"], "```"])
    assert block in (DOCS / "architecture.md").read_text("utf-8")


def test_every_public_name_stands_in_the_reference():
    import gramkeep  # noqa: PLC0415
    import gramkeep.testing  # noqa: PLC0415

    pages = [page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")]
    shown = set(re.findall(r"^::: (\S+)$", "\n".join(pages), re.MULTILINE))
    for module in (gramkeep, gramkeep.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            assert shown & {f"{module.__name__}.{name}", thing.__module__} or any(
                thing.__module__.startswith(f"{whole}.") for whole in shown
            ), name
