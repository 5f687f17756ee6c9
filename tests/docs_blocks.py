"""The code blocks of README.md and docs/, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"", "bash", "console", "python", "toml", "text"}
"""What a block may be; docs/about-docs.md says what each means."""

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPERATORS = {"|", "||", "&&", ";", ">", "<", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Its commands, as words: pipes and `&&` divide them, comments are left out."""
        if self.language == "console":
            lines = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        else:
            lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "bash":  # a script: its own lines are the shell's business
            lines = [line for line in lines if re.search("smp[-_]camvid", line)]
        return [words for line in lines for words in commands_of(line)]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in _FENCE.finditer(text)
    ]


def all_blocks(*languages: str) -> list[Block]:
    return [b for page in PAGES for b in blocks_of(page) if b.language in languages]


def commands_of(line: str) -> Iterator[list[str]]:
    """The simple commands of a line of shell, without variables set before them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _OPERATORS:
            words.append(word)
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def inline_commands(page: Path) -> list[tuple[int, list[str]]]:
    """`smp-camvid ...` in the prose of a page, where nothing stands for something else."""
    text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
    found = []
    for span in re.finditer(r"`([^`]+)`", text):
        command = " ".join(span[1].split())
        if not command.startswith("smp-camvid ") or re.search(r"\.\.\.|\b[A-Z]{2,}\b", command):
            continue
        number = text.count("\n", 0, span.start()) + 1
        found += [(number, words) for words in commands_of(command)]
    return found
