"""Reads the tables of a page: caption, headings and cells as text."""

import dataclasses
import html.parser


@dataclasses.dataclass
class Table:
    """Text of a table."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    kind: str


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tables, self._text, self._row = [], None, []

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append(Table("", [], [], dict(attributes).get("class", "")))
        elif tag == "tr":
            self._row = []
        elif tag in ("caption", "th", "td"):
            self._text = ""

    def handle_data(self, data):
        if self._text is not None:
            self._text += data

    def handle_endtag(self, tag):
        if tag == "caption":
            self.tables[-1].caption, self._text = self._text, None
        elif tag in ("th", "td"):
            self._row.append(self._text)
            self._text = None
        elif tag == "tr":
            if self.tables[-1].head:
                self.tables[-1].rows.append(self._row)
            else:
                self.tables[-1].head = self._row


def read_tables(page: str) -> list[Table]:
    """Returns all tables of an HTML text in order."""
    reader = _Reader()
    reader.feed(page)
    return reader.tables
