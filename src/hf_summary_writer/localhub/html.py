"""Plain HTML pages without scripts; all content of repos is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1f2328; --muted: #59636e; --line: #d1d9e0; --link: #0b57d0; --box: #f6f8fa;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --text: #e6edf3; --muted: #9198a1; --line: #3d444d; --link: #79b8ff; --box: #151b23; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
html { background: var(--page); color: var(--text); }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
td, th { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
td, th, h1, h2, h3, p, figcaption { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: 1rem; margin: 0; }
code { background: var(--box); padding: .1rem .3rem; border-radius: .25rem; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; }
.run { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; margin: .75rem 0; }
.run p { margin: 0; color: var(--muted); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 1rem; }
figure { margin: .75rem 0 0; min-width: 0; } figcaption { font-size: .85rem; }
svg { display: block; width: 100%; height: 5rem; background: var(--box); border-radius: .25rem; }
polyline { fill: none; stroke: var(--link); stroke-width: 1.5px; } circle { fill: var(--link); }
"""
_META = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_THOUSAND = 1000


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as HTML; markup stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def link(path: str, label: object) -> Markup:
    """Return a link to a path of this Hub."""
    return Markup(f'<a href="{escape(path)}">{text(label)}</a>')


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table; a head that ends with ">" marks a column of numbers."""
    kinds = [' class="number"' if head.endswith(">") else "" for head in heads]
    top = "".join(f"<th{kind}>{text(head.rstrip('>'))}</th>" for head, kind in zip(heads, kinds, strict=True))
    lines = ["".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return Markup(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def tag(name: str, content: object) -> Markup:
    """Return an element without attributes."""
    return Markup(f"<{name}>{text(content)}</{name}>")


def element(name: str, content: object, kind: str) -> Markup:
    """Return an element with a class, for the style of the page."""
    return Markup(f'<{name} class="{kind}">{text(content)}</{name}>')


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return pieces, one after the other."""
    return Markup(between.join(text(part) for part in parts))


def size(number: float) -> str:
    """Return a human-readable number of bytes."""
    unit = 0
    while number >= _THOUSAND and unit < len(_UNITS) - 1:
        number, unit = number / _THOUSAND, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"


def page(title: str, parts: Iterable[object], status: int = 200) -> HTMLResponse:
    """Return a whole page."""
    head = f"{_META}<title>{escape(title)}</title><style>{_STYLE}</style>"
    body = join([tag("p", link("/", "Local Hub")), *parts])
    return HTMLResponse(f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>", status, _HEADERS)
