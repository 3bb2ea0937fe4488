"""Links of the documents lead to sections that are there, and the habits' versions are those of constraints.txt."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "benchmark" / "README.md"]


def prose(document: Path) -> str:
    """The text of a document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub and the site give the headings of a document."""
    headings = re.findall(r"^#+ (.+?)\s*$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_section_that_are_there(document):
    for path, anchor in re.findall(r"\]\(([^):#\s]*)(?:#([^)\s]*))?\)", prose(document)):
        target = document.parent / path if path else document
        assert target.exists(), f"{path} is not there"
        assert not anchor or anchor in anchors(target), f"{path}#{anchor} is not there"


def test_pre_commit_has_the_versions_of_the_constraints():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    found = dict(re.findall(r"/(ruff|codespell)(?:-pre-commit)?\n +rev: v(\S+)", text))
    assert found == {name: pinned[name] for name in ("ruff", "codespell")}


def test_the_citation_names_the_version_of_the_package():
    from ser_batch import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
