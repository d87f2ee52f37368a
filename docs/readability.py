"""How hard the documents are to read, as Flesch's reading ease, and their hardest sentences:

    python docs/readability.py            # a figure for each page, and the hardest sentences
    python docs/readability.py 40bbfe6    # a figure for each page of a commit

206.835 - 1.015 × words per sentence - 84.6 × syllables per word (Flesch, "A new readability yardstick", 1948): 60 to 70
is plain English, below 30 hard. Syllables are counted as groups of vowels, which is right in most words. Only prose
counts: no code, tables, headings or links' targets.
"""

import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
GENERATED = ("docs/configuration.md", "docs/files.md", "docs/results.md")
SHOWN = 20
LONG = 15
"""Words from which on a sentence can be one of the hardest: of a short one a single word decides."""


def main() -> None:
    """Prints the figures of the working folder, or of a commit."""
    commit = sys.argv[1] if len(sys.argv) > 1 else ""
    texts = {name: sentences(prose(text)) for name, text in pages(commit).items()}
    for name, each in texts.items():
        print(f"{ease(each):6.1f}  {len(each):4} sentences  {name}")  # noqa: T201
    every = [sentence for each in texts.values() for sentence in each]
    print(f"{ease(every):6.1f}  {len(every):4} sentences  altogether")  # noqa: T201
    if not commit:
        long = [(name, each) for name, some in texts.items() for each in some if len(words(each)) >= LONG]
        for score, name, sentence in sorted((ease([each]), name, each) for name, each in long)[:SHOWN]:
            print(f"\n{score:.0f}, {len(words(sentence))} words, {name}:\n  {sentence}")  # noqa: T201


def pages(commit: str) -> dict[str, str]:
    """Name → text of README.md and the pages of docs/ that people have written."""
    if commit:
        listed = git("ls-tree", "-r", "--name-only", commit, "README.md", "docs/").split()
    else:
        listed = ["README.md", *(path.relative_to(REPO).as_posix() for path in sorted(REPO.glob("docs/*.md")))]
    names = [name for name in listed if name.endswith(".md") and name not in GENERATED]
    return {n: git("show", f"{commit}:{n}") if commit else (REPO / n).read_text(encoding="utf-8") for n in names}


def git(*arguments: str) -> str:
    """The output of a git command."""
    return subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True, check=True).stdout


def prose(text: str) -> str:
    """*text*, Markdown, without what is no sentence; an item of a list is a paragraph."""
    text = re.sub(r"^ *(```|~~~).*?^ *\1", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->|<[^>\n]+>", "", text, flags=re.DOTALL)
    text = re.sub(r"^(#|\||\[!|!\[|\|).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ *(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "Code", text)
    return text.replace("*", "")


def sentences(text: str) -> list[str]:
    """The sentences of *text*: they end with a full stop, a question mark, or their paragraph."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    parts = [part for paragraph in paragraphs for part in re.split(r"(?<=[.?!])\s+(?=[A-Z0-9\"'(])", paragraph)]
    return [part for part in parts if len(words(part)) > 2 and " · " not in part]  # those are lists of links


def words(sentence: str) -> list[str]:
    """Its words; numbers are none."""
    return re.findall(r"[A-Za-z][A-Za-z'-]*", sentence)


def syllables(word: str) -> int:
    """Groups of vowels, without a silent e at the end."""
    groups = re.findall(r"[aeiouy]+", re.sub(r"(?<=[^laeiouy])e$|(?<=[^aeiouytd])ed$", "", word.lower()))
    return max(1, len(groups))


def ease(texts: list[str]) -> float:
    """Flesch's reading ease of some sentences."""
    every = [word for sentence in texts for word in words(sentence)]
    if not every:
        return 0.0
    return 206.835 - 1.015 * len(every) / len(texts) - 84.6 * sum(map(syllables, every)) / len(every)


if __name__ == "__main__":
    main()
