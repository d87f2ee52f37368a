"""The documents agree with the code, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
from conftest import REPO, script
from fault_record import FAULTS

PAGES = [
    REPO / "README.md",
    REPO / "CONTRIBUTING.md",
    REPO / "benchmarks" / "README.md",
    *sorted(REPO.glob("docs/*.md")),
]


def test_the_configuration_page_is_up_to_date() -> None:
    configuration = script("configuration")
    assert configuration.page() == configuration.PAGE.read_text(), "run: python docs/configuration.py"


def anchors(page: Path) -> set[str]:
    """What `#…` may name on *page*: its headings, spelled as GitHub does."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links and pictures of *page* that lead nowhere; addresses on the network are not tried."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset|href)="([^"]+)"', prose)
    lost = []
    for link in found:
        if re.match(r"https?://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_meta_a_broken_link_is_found(scratch: Path) -> None:
    page = scratch / "page.md"
    page.write_text(
        '# A b, `c`\n[x](#a-b-c) [y](page.md#no) [z](no.md) ![i](page.md)\n<img src="no.png">\n[w](http://x)\n'
    )
    assert broken(page) == ["page.md#no", "no.md", "no.png"]


def test_every_page_and_picture_is_linked_from_somewhere() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for path in [*REPO.glob("docs/*.md"), *REPO.glob("docs/images/*"), *REPO.glob("docs/*.ipynb")]:
        assert re.search(rf"[(/\"]{re.escape(path.name)}", text), f"nobody links {path.name}"


def test_the_table_of_faults_is_complete() -> None:
    """`pytest -m faults --fault-table` writes it."""
    text = (REPO / "docs" / "reliability.md").read_text()
    table = text[text.index("<!-- faults -->") : text.index("<!-- end -->")]
    rows = re.findall(r"^\| (\d+) \| (.+?) \| \d+ \| (.+?) \| (.+) \|$", table, re.MULTILINE)
    assert {int(number): (fault, promise) for number, fault, _, promise in rows} == FAULTS
    assert [number for number, _, outcome, _ in rows if outcome == "**broken**"] == []
