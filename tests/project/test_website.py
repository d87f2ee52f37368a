"""The site of the documents: what docs/website.py adds to it, and what it refuses."""

from types import SimpleNamespace
from typing import Any

import pytest
from samples import REPO, script

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")


@pytest.fixture(scope="module")
def website() -> Any:
    return script("website")


@pytest.mark.parametrize(
    ("here", "typed", "there"),
    [
        ("search.md", "[x](../benchmarks/README.md)", "[x](source/benchmarks/README.md)"),
        ("results.md", "[x](../conf/experiment/mlp128.yaml)", "[x](source/conf/experiment/mlp128.yaml.md)"),
        ("source/CONTRIBUTING.md", "[x](docs/design.md#the-ways)", "[x](../design.md#the-ways)"),
        ("source/CONTRIBUTING.md", "[x](.github/SECURITY.md)", "[x](github/SECURITY.md)"),
        ("search.md", "[x](https://optuna.org) [y](#how-it-runs)", "[x](https://optuna.org) [y](#how-it-runs)"),
    ],
)
def test_a_link_leads_to_the_page_that_the_site_has_of_a_file(website: Any, here: str, typed: str, there: str) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=here))
    assert website.on_page_markdown(typed, page, None, None) == there


def test_what_each_shell_is_told_becomes_a_tab(website: Any) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="install.md"))
    alone = "```bash\nls\n```\n\nand then\n\n"
    pair = "```bash\npwd\n\nls\n```\n\n```powershell\nGet-Location\n```\n"
    shown = website.on_page_markdown(alone + pair, page, None, None)
    assert shown.startswith(alone)
    assert shown.count("=== ") == 2
    assert '=== "bash"\n\n    ```bash\n    pwd\n\n    ls\n    ```\n\n=== "PowerShell"\n\n    ```powershell\n' in shown


def test_every_command_for_powershell_is_in_a_tab(website: Any) -> None:
    pages = [*REPO.glob("docs/*.md"), *REPO.glob("*.md")]
    blocks = sum(page.read_text().count("\n```powershell\n") for page in pages)
    assert blocks == sum(len(website.SHELLS.findall(page.read_text())) for page in pages) >= 4


def test_a_file_that_is_no_document_is_shown_as_it_stands(website: Any) -> None:
    shown = website.page("conf/experiment/mlp128.yaml")
    assert shown.startswith("# conf/experiment/mlp128.yaml\n\n~~~~yaml\n")
    assert (REPO / "conf/experiment/mlp128.yaml").read_text() in shown


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="https://x.example/a.css">',
        "<img alt=a src=http://x.example/a.png>",
    ],
)
def test_a_page_that_asks_another_host_is_refused(website: Any, tag: str) -> None:
    from mkdocs.exceptions import PluginError

    page = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    with pytest.raises(PluginError, match=r"a\.md would load from another host"):
        website.on_post_page(f"<p>{tag}</p>", page, None)
    website.on_post_page('<a href="https://optuna.org">x</a><script src="a.js">', page, None)
