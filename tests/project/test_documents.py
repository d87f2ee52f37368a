"""The documents agree with the code, and their links resolve."""

import ast
import html
import re
from pathlib import Path

import pytest
from fault_record import FAULTS
from samples import REPO, script

from mnist_exp.models import mlp

PAGES = [
    REPO / "README.md",
    REPO / "CONTRIBUTING.md",
    *sorted(REPO.glob(".github/*.md")),
    REPO / "benchmarks" / "README.md",
    *sorted(REPO.glob("docs/*.md")),
]


def test_the_configuration_page_is_up_to_date() -> None:
    configuration = script("configuration")
    assert configuration.page() == configuration.PAGE.read_text(), "run: python docs/configuration.py"


@pytest.mark.parametrize(("key", "names"), [("activation", mlp.ACTIVATIONS), ("norm", mlp.NORMS), ("init", mlp.INITS)])
def test_the_choices_of_the_network_are_beside_their_settings(key: str, names: dict[str, object]) -> None:
    (beside,) = re.findall(rf"^{key}: \w+ +# (.*)$", (REPO / "conf" / "model" / "mlp.yaml").read_text(), re.MULTILINE)
    assert set(names) <= set(re.findall(r"\w+", beside))


@pytest.mark.parametrize("group", ["augment", "model", "schedule"])
def test_a_setting_of_a_part_says_its_unit_or_its_range(group: str) -> None:
    for path in (REPO / "conf" / group).glob("*.yaml"):
        for line in path.read_text().splitlines():
            assert re.match(r"#|_target_:|hidden:|\{\}|\w+: .*\S +# \w", line), f"{path.name}: {line}"


def test_pictures_of_terminals_show_neither_a_busy_machine_nor_a_fault() -> None:
    captures = script("captures")
    for path in REPO.glob("docs/images/terminal-*.svg"):
        text = html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text()))).replace("\xa0", " ")
        assert "mnist_exp" in text
        assert not [word for word in captures.UNFIT if word in text], path.name


def test_the_glossary_is_short_and_the_package_uses_its_terms() -> None:
    """25 terms are the most: who has to learn more of them reads another language."""
    rows = re.findall(r"^\| (?!term |---)(.+?) \|", (REPO / "docs" / "glossary.md").read_text(), re.MULTILINE)
    terms = [term for row in rows for term in row.split(", ")]
    assert 10 < len(terms) <= 25
    assert len(terms) == len(set(terms))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPO / "mnist_exp").rglob("*.py"))
    assert not [term for term in terms if not re.search(rf"\b{term}", code, re.IGNORECASE)]


RETIRED = "company place seat standing news diary bury judge told aside words there found"
"""What names in the code were called, and a reader had to learn: the glossary has the field's terms for them."""


def names(code: str) -> set[str]:
    """What *code* names: functions, classes, arguments, fields and variables."""
    nodes = list(ast.walk(ast.parse(code)))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return defined | bound | {node.arg for node in nodes if isinstance(node, ast.arg)}


@pytest.mark.parametrize("folder", ["mnist_exp", "hydra_plugins"])
def test_no_name_has_to_be_decoded(folder: str) -> None:
    named = {path.name: names(path.read_text(encoding="utf-8")) for path in (REPO / folder).rglob("*.py")}
    assert named
    assert not {path: retired for path, each in named.items() if (retired := each & {*RETIRED.split()})}


def test_meta_a_retired_name_is_seen() -> None:
    assert names("class A:\n    seat: int\ndef f(place): told = 1\nfor aside in b: pass") >= {
        "seat",
        "place",
        "told",
        "aside",
    }


def anchors(page: Path) -> set[str]:
    """The anchors of *page*: its headings in GitHub's spelling."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Links and pictures of *page* without a target; network addresses are not checked."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset|href)="([^"]+)"', prose)
    lost = []
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
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


def test_a_table_of_the_front_page_has_four_columns_at_most() -> None:
    tables = re.findall(r"^\|(?: -+:? \|)+$", (REPO / "README.md").read_text(), re.MULTILINE)
    assert tables
    assert max(line.count("|") - 1 for line in tables) <= 4


def test_the_table_of_faults_is_complete() -> None:
    """`pytest -m faults -n 0 --fault-table` writes it."""
    text = (REPO / "docs" / "reliability.md").read_text()
    table = text[text.index("<!-- faults -->") : text.index("<!-- end -->")]
    rows = re.findall(r"^\| (\d+) \| (.+?) \| \d+ \| (.+?) \| (.+) \|$", table, re.MULTILINE)
    assert {int(number): (fault, promise) for number, fault, _, promise in rows} == FAULTS
    assert [number for number, _, outcome, _ in rows if outcome == "**broken**"] == []


def test_the_index_lists_every_page() -> None:
    index = (REPO / "docs" / "README.md").read_text()
    for path in [*REPO.glob("docs/*.md"), *REPO.glob("docs/*.ipynb")]:
        assert path.name == "README.md" or f"]({path.name})" in index, f"docs/README.md lists no {path.name}"


def test_the_design_names_modules_that_exist() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (REPO / "docs" / "design.md").read_text())
    assert len(named) > 15
    assert [name for name in named if not (REPO / name).exists() and not (REPO / "mnist_exp" / name).exists()] == []
