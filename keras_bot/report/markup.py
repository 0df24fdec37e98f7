"""HTML from Python values. All values except `Html` are escaped, so that no name from a file can become markup."""

import base64
import html
import re
from collections.abc import Iterable, Sequence

VOID = ("img", "meta", "br")


class Html(str):
    """A string that is HTML."""

    __slots__ = ()


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Builds `<tag attributes>content</tag>`.

    Args:
        content: `Html` is kept as is, other values are escaped, None is omitted, lists are flattened.
        attributes: `class_` means class, `aria_label` aria-label. True gives the bare name; None and False omit it.
    """
    start = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}>"
    return Html(start if tag in VOID else f"{start}{join(content)}</{tag}>")


def join(content: Iterable[object]) -> Html:
    """Concatenates the parts, escaping those that aren't `Html`."""
    return Html("".join(_text(part) for part in content))


def _text(part):
    if part is None:
        return ""
    if isinstance(part, list | tuple):
        return join(part)
    return part if isinstance(part, Html) else html.escape(_valid_text(part), quote=False)


def _attribute(name, value):
    name = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(_valid_text(value))}"'


def _valid_text(value):
    """Replaces what HTML may not contain: control characters except line breaks and tabs, and lone surrogates."""
    text = str(value).encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "�", text)


def table(
    caption: object, head: Sequence[object], rows: Iterable[Sequence[object]], *, kind: str = "", sortable: bool = False
) -> Html:
    """Builds a table that scrolls horizontally if wider than the page. The first cell of a row is its heading.

    Args:
        caption: shown above the table.
        head: one heading per column.
        rows: one cell per column; `Html` of a whole `<td>` or `<th>` is kept as is.
        kind: CSS classes.
        sortable: whether clicking a heading sorts the table; needs JavaScript.
    """
    body = [element("tr", _cell(row[0], "th", scope="row"), [_cell(cell, "td") for cell in row[1:]]) for row in rows]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", [_cell(cell, "th", scope="col") for cell in head])),
        element("tbody", body),
        class_=f"{kind} {'sortable' if sortable else ''}".strip() or None,
    )
    label = caption if not isinstance(caption, Html) else None
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=label or "table")


def _cell(content, tag, **attributes):
    is_cell = isinstance(content, Html) and content.startswith(("<td", "<th"))
    return content if is_cell else element(tag, content, **attributes)


def picture(content: bytes, kind: str, alt: str, **attributes: object) -> Html:
    """Builds an `<img>` with embedded data; `kind` is png or jpeg."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return element("img", src=source, alt=alt, **attributes)
