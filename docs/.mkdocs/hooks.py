"""MkDocs hook that generates the tables of docs/notes/measurements.md from measurements.csv.

In mkdocs.yml: `hooks: [hooks.py]`. The page contains the line `<!-- measurements -->`, which the tables replace.
"""

from __future__ import annotations

import csv
import html
import itertools
import pathlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PAGE = "notes/measurements.md"
PLACEHOLDER = "<!-- measurements -->"
COLUMNS = ("date", "commit", "machine", "command", "figure", "unit", "note")
USUAL_MACHINE = "2 CPU cores (AVX512-BF16)"

_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ |[A-Z_]+=\"[^\"]*\" )*(?:keras-bot|pytest|python|\.ci/run)\b")
_HEADER = ("Command", "Figure", "Unit", "Note", "Commit")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files, **kwargs: Any) -> str:
    """Returns the page's Markdown, for the measurements page with the tables in place of the placeholder.

    Args:
        markdown: Markdown of the page.
        page: the page.
        config, files, **kwargs: other arguments of the MkDocs event.

    Raises:
        ValueError: if the measurements page lacks the placeholder, or the CSV file is not valid.
    """
    if page.file.src_uri != PAGE:
        return markdown
    if (count := markdown.count(PLACEHOLDER)) != 1:
        raise ValueError(f"{PAGE} contains {count} lines {PLACEHOLDER}, but must contain one.")
    rows = read_rows(pathlib.Path(config["docs_dir"]) / "notes" / "measurements.csv")
    return markdown.replace(PLACEHOLDER, tables(rows))


def read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """Reads the measurements in file order.

    Raises:
        ValueError: if the columns differ from `COLUMNS`, or a row has another number of fields.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}, but has {', '.join(header)}.")
        rows = []
        for fields in reader:
            if len(fields) != len(COLUMNS):
                raise ValueError(f"{path}, line {reader.line_num}: {len(fields)} fields instead of {len(COLUMNS)}.")
            rows.append(dict(zip(COLUMNS, fields, strict=True)))
    return rows


def tables(rows: list[dict[str, str]]) -> str:
    """Returns one Markdown section with a table per date, newest first."""
    newest_first = sorted(rows, key=lambda row: row["date"], reverse=True)
    groups = itertools.groupby(newest_first, key=lambda row: row["date"])
    return "\n\n".join(f"## {date}\n\n{_table(list(group))}" for date, group in groups)


def _table(rows):
    """Returns a Markdown table. A command or commit that is equal to that of the row above is left out."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    above: tuple[str, ...] = ()
    for row in rows:
        group = (row["command"], row["machine"], row["commit"])
        repeated = group == above
        command = "" if repeated else _command(row["command"], row["machine"])
        commit = "" if repeated or not row["commit"] else f"`{row['commit']}`"
        lines.append(_line([command, _escape(row["figure"]), _escape(row["unit"]), _escape(row["note"]), commit]))
        above = group
    return "\n".join(lines)


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _command(command, machine):
    """Formats commands as code and descriptions as text; adds the machine unless it is the usual one."""
    text = f"`{command}`".replace("|", "\\|") if _COMMAND.match(command) else _escape(command)
    return text if machine == USUAL_MACHINE else f"{text} (on {_escape(machine)})"


def _escape(text):
    """Escapes the characters with a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]|#])", r"\\\1", html.escape(text, quote=False))
