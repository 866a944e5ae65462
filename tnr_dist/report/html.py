"""A document as one HTML page that needs nothing else: its style and its charts are in it, there is no script."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tnr_dist.figures.drawing import DASHES
from tnr_dist.figures.palette import DARK, LIGHT, declarations, rules
from tnr_dist.report.page import Document
from tnr_dist.util.markup import html


def to_html(document: Document) -> str:
    """The page. Names and values are escaped; the charts' SVG is our own, and escapes what it shows."""
    folder = resources.files("tnr_dist.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["breakable"] = _breakable
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    style = folder.joinpath("style.css").read_text(encoding="utf-8")
    colours = (
        f":root {{ color-scheme: light dark; {declarations(LIGHT)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {declarations(DARK)} }} }}\n{rules()}\n"
    )
    return template.render(
        document=document,
        dashes=len(DASHES),
        style=Markup(colours + style),
        chart=lambda drawing, ident: Markup(drawing.svg(ident)),
    )


def _breakable(text: str) -> Markup:
    """A name that may be broken after its dots and underscores, as on a phone it must."""
    return Markup(html(text).replace(".", ".<wbr>").replace("_", "_<wbr>"))
