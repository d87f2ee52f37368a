"""Hooks of the site that mkdocs builds (mkdocs.yml).

What the documents link outside docs/ becomes a page of the site, and so does the Python API. Commands in bash that are
followed by the same in PowerShell become tabs. A page that would load anything from another host is refused.
"""

import posixpath
import re
import textwrap
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPO = Path(__file__).resolve().parent.parent
ELSEWHERE = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?https?://|<link[^>]*stylesheet[^>]*https?://")
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")
BODY = r"((?:(?!```).*\n)*)```"
SHELLS = re.compile(rf"^```bash\n{BODY}\n\n```powershell\n{BODY}$", re.MULTILINE)
API = """# Python API

What you may rely on from Python; [From Python](python.md) shows it at work.

::: mnist_exp.notebook.train_from
::: mnist_exp.notebook.sweep
::: mnist_exp.notebook.load_model
::: mnist_exp.results
::: mnist_exp.errors

Of a [callback](add-a-model.md#a-metric-a-logger-or-a-rule-that-ends-a-run):

::: mnist_exp.engine.events.Callback
::: mnist_exp.engine.events.EpochEnd
"""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the API, and each file outside docs/ that a page links, or a page that was added so."""
    waiting = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    files.append(File.generated(config, "api.md", content=API))
    while waiting:
        source, text = waiting.pop()
        for link, _ in LINK.findall(text):
            target = resolved(source, link)
            if outside(target) and not files.get_file_from_path(uri(target)):
                content = page(target)
                files.append(File.generated(config, uri(target), content=content))
                if target.endswith(".md"):
                    waiting.append((target, content))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Has links lead to where `on_files` put what they name, and makes tabs of what each shell is told."""
    here = page.file.src_uri
    source = here.removeprefix("source/") if here.startswith("source/") else f"docs/{here}"

    def moved(match: re.Match[str]) -> str:
        target = resolved(source, match[1])
        if not (REPO / target).is_file():
            return match[0]
        return f"]({posixpath.relpath(uri(target), posixpath.dirname(here) or '.')}{match[2] or ''})"

    return markdown if here.endswith((".py.md", ".yaml.md")) else LINK.sub(moved, SHELLS.sub(tabs, markdown))


def tabs(match: re.Match[str]) -> str:
    """A tab for each shell; on GitHub, which has none, the blocks stand one below the other."""
    shells = {"bash": match[1], "PowerShell": match[2]}
    blocks = {shell: textwrap.indent(f"```{shell.lower()}\n{body}```", "    ") for shell, body in shells.items()}
    return "\n\n".join(f'=== "{shell}"\n\n{block}' for shell, block in blocks.items())


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Refuses a page that asks another host for a script, a style or a picture."""
    if matches := ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} would load from another host: {matches[0]}")


def resolved(source: str, link: str) -> str:
    """The path in the repository that *link* means in the file *source*."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def outside(target: str) -> bool:
    """Whether *target* is a file that is no part of docs/."""
    return not target.startswith("docs/") and (REPO / target).is_file()


def uri(target: str) -> str:
    """Where the site has *target*, a path in the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target.replace('.github', 'github')}" + ("" if target.endswith(".md") else ".md")


def page(target: str) -> str:
    """*target* as Markdown: itself, or its text as it stands."""
    text = (REPO / target).read_text(encoding="utf-8")
    return text if target.endswith(".md") else f"# {target}\n\n~~~~{target.rpartition('.')[2]}\n{text}\n~~~~\n"
