"""A page: one HTML file with everything in it, figures' data beside it as CSV, and nothing fetched from anywhere."""

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import plotly.io
from plotly.offline import get_plotlyjs

from workhorse.core.files import is_there, list_folder, make_folder, remove, write_file, writing
from workhorse.reports.figure import Figure, LegendEntry, PanelHead
from workhorse.reports.markup import Markup, escape, paragraph, prose
from workhorse.reports.palette import css_variables, dark_twins

__all__ = ["DATA_FOLDER", "Page"]

DATA_FOLDER = "report-data"
"""Folder of the figures' tables, next to the page."""

_DASH_LENGTHS = {
    "solid": "", "dash": "5 3.5", "dot": "2 2.5", "dashdot": "6 3 2 3", "longdash": "8 4", "longdashdot": "8 3 2 3",
}  # fmt: skip
_HERE = Path(__file__).parent


class Page:
    """A page being put together: sections of markup, and the figures in them.

    Attributes:
        title: of the browser's tab.
        figures: those drawn so far.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.figures: list[Figure] = []
        self._head = Markup("")
        self._sections: list[tuple[str, str, Markup]] = []

    def begin(self, kicker: str, answer: str, under: Markup) -> None:
        """The head of the page: a small line, the plain answer, and what stands under it."""
        self._head = Markup(f'<p class="kicker">{escape(kicker)}</p><h1>{escape(answer)}</h1>{under}')

    def add(self, id: str, title: str, *parts: Markup) -> None:
        """A section; one without anything in it is left out."""
        inside = "".join(parts)
        if inside:
            self._sections.append((id, title, Markup(inside)))

    def draw(self, figure: Figure | None, after: Markup | str = "") -> Markup:
        """The markup of a figure, which the page will draw, with what stands under it; nothing for none."""
        if figure is None:
            return Markup("")
        taken = {other.name for other in self.figures}
        names = (figure.name, *(f"{figure.name}-{number}" for number in range(2, len(taken) + 3)))
        figure = replace(figure, name=next(name for name in names if name not in taken))
        self.figures.append(figure)
        panels = "".join(_panel(figure, place) for place in range(len(figure.panels)))
        small = " small-panels" if figure.panel_width <= 200 else ""
        return Markup(
            f'<figure class="figure" id="figure-{html.escape(figure.name)}"><div class="figure-head">'
            f"<h3>{escape(figure.title)}</h3>{_download(figure)}</div>{_legend(figure.name, figure.legend)}"
            f'<div class="panels{small}" style="--panel: {figure.panel_width}px">{panels}</div>'
            f"<figcaption>{prose(figure.caption)}</figcaption>{after}</figure>"
        )

    def write(self, folder: Path) -> Path:
        """Write the page and the tables of its figures into a folder, the page last and at once.

        Raises:
            UsageError: the disk is full, read-only or not there.
        """
        data, page = folder / DATA_FOLDER, folder / "report.html"
        with writing("the report", page):
            folder.mkdir(parents=True, exist_ok=True)
            if is_there(data) and (data.is_symlink() or not data.is_dir()):
                remove(data)  # by name: what a link points to is not ours
            make_folder(data)
            for old in list_folder(data, "*.csv"):
                remove(old)
            for figure in self.figures:
                write_file(data / f"{figure.name}.csv", figure.csv.encode(), folder, durable=False)
            write_file(page, self.html().encode())
        return page

    def html(self) -> str:
        """The whole page."""
        contents = "".join(f'<a href="#{id}">{escape(title)}</a>' for id, title, _ in self._sections)
        sections = "".join(
            f'<section id="{id}"><h2>{escape(title)}</h2>{inside}</section>' for id, title, inside in self._sections
        )
        plotly_js, page_js = _scripts()
        hashes = " ".join(f"'sha256-{_digest(script)}'" for script in (plotly_js, page_js))
        policy = (
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
            "media-src data:; base-uri 'none'; form-action 'none'"
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
            f"<title>{escape(self.title)}</title><style>{css_variables()}{_style()}</style></head>\n<body>"
            '<header><button type="button" id="theme" aria-label="Light or dark">Dark</button>'
            f"{self._head}</header><nav>{contents}</nav><main>"
            "<noscript><p>The figures need JavaScript; their data are in the CSV files.</p></noscript>"
            f"{sections}</main>"
            f'<script type="application/json" id="figures">{self._figure_json()}</script>'
            f'<script type="application/json" id="dark-twins">{json.dumps(dark_twins())}</script>'
            f"<script>{plotly_js}</script><script>{page_js}</script></body></html>\n"
        )

    def _figure_json(self) -> str:
        """Every panel's traces and layout; no `<` is left, whatever the encoder does, that could end their script."""
        panels = ",".join(
            f"{json.dumps(figure.name)}: [{','.join(str(plotly.io.to_json(p, validate=False)) for p in figure.panels)}]"
            for figure in self.figures
        )
        return "{" + panels.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + "}"


def _download(figure: Figure) -> str:
    content = base64.b64encode(figure.csv.encode()).decode()
    name = html.escape(f"{figure.name}.csv")
    return f'<a class="csv" download="{name}" href="data:text/csv;charset=utf-8;base64,{content}">CSV</a>'


def _panel(figure: Figure, place: int) -> str:
    """Return the place of a panel, with what stands above it."""
    head = figure.heads[place] if figure.heads else None
    title = figure.title if head is None else f"{figure.title}: {head.title}"
    drawn = (
        f'<div class="panel" data-figure="{html.escape(figure.name)}" data-panel="{place}" role="img" '
        f'aria-label="{escape(title)}" style="min-height: {figure.panels[place].layout["height"]}px"></div>'
    )
    return drawn if head is None else f'<div class="measured">{_head(figure.name, head)}{drawn}</div>'


def _head(figure: str, head: PanelHead) -> str:
    unit = f' <span class="unit">{escape(head.unit)}</span>' if head.unit else ""
    name = f" <code>{escape(head.name)}</code>" if head.name else ""
    notes = paragraph(head.note, "small") + paragraph(head.trouble, "small bad")
    return (
        f'<div><h4>{escape(head.title)}{unit}</h4><p class="small">{escape(head.text)}{name}</p></div>'
        f"<div>{_legend(figure, head.legend)}{notes}</div>"
    )


def _legend(figure: str, legend: Sequence[LegendEntry]) -> str:
    return f'<div class="legend">{"".join(_key(figure, key) for key in legend)}</div>' if legend else ""


def _key(name: str, key: LegendEntry) -> str:
    inside = f"{_swatch(key)}{escape(key.label)}"
    if not key.group:
        return f'<span class="key">{inside}</span>'
    return (
        f'<button type="button" class="key" aria-pressed="true" title="Hide or show" data-figure="{html.escape(name)}" '
        f'data-group="{html.escape(key.group)}">{inside}</button>'
    )


def _swatch(key: LegendEntry) -> str:
    colour = f"var(--{key.colour})"
    if key.style in ("line", "level"):
        width = 2.6 if key.style == "line" else 1.6
        shape = f'<path d="M1 7H23" stroke-width="{width}" stroke-dasharray="{_DASH_LENGTHS[key.dash]}"/>'
    else:
        filled = f'fill="{colour}"'
        shape = {
            "dot": f'<circle cx="11" cy="7" r="4" {filled}/>',
            "open": '<circle cx="11" cy="7" r="4" stroke-width="1.6"/>',
            "ring": '<circle cx="11" cy="7" r="5.5" stroke-width="2"/>',
            "diamond": f'<path d="M11 1.5L15 7L11 12.5L7 7Z" {filled}/>',
            "cross": '<path d="M7 3L15 11M15 3L7 11" stroke-width="2.4"/>',
        }[key.style]
    return f'<svg width="24" height="14" fill="none" stroke="{colour}" aria-hidden="true">{shape}</svg>'


@functools.cache
def _scripts() -> tuple[str, str]:
    """Plotly's and the page's own; neither may hold what would end a script element."""
    scripts = get_plotlyjs(), (_HERE / "page.js").read_text(encoding="utf-8")
    return scripts[0].replace("</script", "<\\/script"), scripts[1]


@functools.cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@functools.cache
def _style() -> str:
    return re.sub(r"\s*\n\s*", "\n", (_HERE / "page.css").read_text(encoding="utf-8"))
