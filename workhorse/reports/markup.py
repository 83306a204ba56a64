"""Pieces of HTML. Whatever comes from a user is escaped here, and nowhere else is text put into a page."""

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

__all__ = ["Markup", "definitions", "escape", "link", "paragraph", "prose", "sentences", "table"]


class Markup(str):
    """Text that is HTML already; any other text is escaped on its way into a page.

    Example:
        >>> escape("a < b"), escape(Markup("<b>a</b>"))
        ('a &lt; b', '<b>a</b>')
    """

    __slots__ = ()


def escape(text: object) -> str:
    """Text made harmless, unless it is `Markup`."""
    return str(text) if isinstance(text, Markup) else html.escape(str(text))


def prose(text: object) -> str:
    """Text made harmless, where what stands between backticks is code, as in the messages on a terminal.

    Example:
        >>> prose("resume it by `workhorse resume a<b`")
        'resume it by <code>workhorse resume a&lt;b</code>'
    """
    return str(text) if isinstance(text, Markup) else re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))


def paragraph(text: object, kind: str = "") -> Markup:
    """A paragraph of a class."""
    return Markup(f"<p{_class(kind)}>{prose(text)}</p>") if text else Markup("")


def sentences(items: Sequence[object], kind: str = "") -> Markup:
    """A list, an item a sentence; nothing where there is none."""
    if not items:
        return Markup("")
    return Markup(f"<ul{_class(kind)}>{''.join(f'<li>{prose(item)}</li>' for item in items)}</ul>")


def definitions(pairs: Mapping[str, object], kind: str = "") -> Markup:
    """Return names and values as a list."""
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{prose(value)}</dd></div>" for name, value in pairs.items())
    return Markup(f"<dl{_class(kind)}>{inside}</dl>")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = (), kind: str = ""
) -> Markup:
    """A table that scrolls by itself where the page is too narrow for it.

    Args:
        columns: their heads.
        rows: text, or `Markup`.
        numbers: places of the columns that stand on the right.
        kind: classes of the table.
    """

    def cells(tag: str, row: Sequence[object]) -> str:
        inside = (
            f"<{tag}{' class=number' if place in numbers else ''}>{escape(value)}</{tag}>"
            for place, value in enumerate(row)
        )
        return f"<tr>{''.join(inside)}</tr>"

    body = "".join(cells("td", row) for row in rows)
    return Markup(
        f'<div class="scroll" tabindex="0"><table{_class(kind)}><thead>{cells("th", columns)}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def link(target: Path | None, page_folder: Path, text: str) -> Markup:
    """A relative link to a file or a folder; the text alone where nothing is there."""
    if target is None or not target.exists():
        return Markup(escape(text))
    try:
        relative = os.path.relpath(target.resolve(), page_folder.resolve())
    except ValueError:  # on another drive
        return Markup(escape(text))
    address = quote(Path(relative).as_posix()) + ("/" if target.is_dir() else "")
    return Markup(f'<a href="./{html.escape(address)}">{escape(text)}</a>')


def _class(kind: str) -> str:
    return f' class="{html.escape(kind)}"' if kind else ""
