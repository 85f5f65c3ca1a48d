"""Parts of a page: tables, sections, charts with their tables, pictures. Every text is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from bocr_onnx.report import charts

STYLE = """
:root{color-scheme:light dark;--ink:#24292f;--soft:#57606a;--line:#d8dee4;--back:#fff;--box:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#8d96a0;--line:#30363d;--back:#0d1117;--box:#161b22}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;font:16px/1.5 system-ui,sans-serif}
body{color:var(--ink);background:var(--back)}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;min-width:6.5rem;overflow-wrap:break-word}
th{color:var(--soft);font-weight:600}.text th,.text td{text-align:left}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--soft)}
pre{font:14px/1.45 ui-monospace,monospace;padding:.8rem;background:var(--box)}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
svg,img{max-width:100%;height:auto}img{display:block;margin:.5rem 0}.dark{display:none}
@media(prefers-color-scheme:dark){.light{display:none}.dark{display:block}}
.missed{border-left:4px solid #cf222e;padding-left:.8rem}.held{border-left:4px solid #1a7f37;padding-left:.8rem}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, parts: Iterable[str]) -> str:
    """Returns a whole page: no script, no request."""
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
    )
    return head + "".join(parts) + "</main></body></html>\n"


def section(title: str, body: str) -> str:
    """Returns a section; nothing where there is nothing to say."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, text: bool = False) -> str:
    """Returns a table, all of whose cells are words where it is one of text; the first column always is."""
    cells = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    if not cells:
        return ""
    title = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    kind = ' class="text"' if text else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{title}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(spec: charts.Spec, label: str, under: str) -> str:
    """Returns a chart in both themes with its table under it; the table alone, open, where nothing draws."""
    drawn = charts.drawn(spec)
    themes = "".join(f'<div class="{name}" aria-hidden="true">{svg}</div>' for name, svg in drawn.items())
    opened = "" if drawn else " open"
    return f"{themes}<details{opened}><summary>{escape(label)}</summary>{under}</details>"


def picture(jpeg: bytes, text: str) -> str:
    """Returns a picture that the page itself holds."""
    return f'<img src="data:image/jpeg;base64,{b64encode(jpeg).decode()}" alt="{escape(text, quote=True)}">'
