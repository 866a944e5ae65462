"""The report's colours by day and by night, each a map from a name to a colour; a test checks their contrast.

Series are near Okabe and Ito's colours, chosen so that any two are told apart with any common colour vision deficiency
and each has a contrast of 3 to 1 with the page (WCAG 1.4.11); texts have 4.5 to 1 (WCAG 1.4.3). Further series repeat
them with another dash.
"""

from __future__ import annotations

_LIGHT_SERIES = ("#3b86d1", "#b83a00", "#00805d", "#c9529f", "#a88600", "#1d1d2b")
_DARK_SERIES = ("#5aa9e6", "#f08a4b", "#7be8b5", "#c74f9f", "#f5d547", "#f2f4f7")
SERIES = len(_LIGHT_SERIES)

LIGHT = {f"c{number}": colour for number, colour in enumerate(_LIGHT_SERIES)} | {
    "page": "#ffffff",
    "panel": "#f6f8fa",
    "text": "#1c2126",
    "muted": "#59636e",
    "link": "#0a5fa8",
    "border": "#d5dae0",
    "axis": "#87909a",
    "grid": "#e6e9ed",
    "reference": "#6e7781",
    "mark": "#e3f0fb",
    "shade": "#87909a",
}
DARK = {f"c{number}": colour for number, colour in enumerate(_DARK_SERIES)} | {
    "page": "#14171b",
    "panel": "#1c2127",
    "text": "#e6e9ec",
    "muted": "#a0a9b3",
    "link": "#78b9f2",
    "border": "#343b44",
    "axis": "#6f7883",
    "grid": "#2a3038",
    "reference": "#98a1ab",
    "mark": "#17334d",
    "shade": "#000000",
}


def declarations(colours: dict[str, str]) -> str:
    """CSS custom properties."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def rules() -> str:
    """Classes of a drawing's parts: stroke and fill in each colour."""
    lines = []
    for number in range(SERIES):
        lines.append(f".s{number} {{ stroke: var(--c{number}); }} .f{number} {{ fill: var(--c{number}); }}")
        lines.append(f".k{number} {{ color: var(--c{number}); }}")
    for word in ("text", "muted", "axis", "grid", "reference"):
        lines.append(f".s-{word} {{ stroke: var(--{word}); }} .f-{word} {{ fill: var(--{word}); }}")
    return "\n".join(lines)
