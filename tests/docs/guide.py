"""Code blocks of README and guide, and the `keras-bot` commands in them."""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "bash", "yaml", "text", "json"}


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced code block: its page, the line of its first code line, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """Returns the fenced code blocks of a page, in order."""
    found, start, language = [], 0, None
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*```(.*)$", line)
        if not fence:
            continue
        if language is None:
            start, language = number, fence.group(1).strip()
        else:
            body = lines[start : number - 1]
            indent = min((len(each) - len(each.lstrip()) for each in body if each.strip()), default=0)
            found.append(Block(page, start + 1, language, "\n".join(each[indent:] for each in body) + "\n"))
            language = None
    assert language is None, f"{page}:{start}: this code block has no end"
    return found


def commands(block: Block) -> list[list[str]]:
    """Returns the arguments of each `keras-bot` command in a bash block, without variables, pipes and comments."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        for words in map(_words, re.split(r"(?:^|[\s/])keras-bot(?=\s)", line)[1:]):
            ends = [k for k, word in enumerate(words) if re.fullmatch(r"[|&;]+|\d?>.*", word)]
            found.append(words[: ends[0]] if ends else words)
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quotation over several lines, as in a batch script
        return line.partition("#")[0].replace("'", "").split()
