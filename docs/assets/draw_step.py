"""Draws docs/assets/step.svg, the way of the data through one stage-2 step: `python docs/assets/draw_step.py`."""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT = 940, 560
# name, file, what leaves it; centre x, top y
BOXES = [
    ("ClickLoader.epoch", "data/batches/clicks.py", 150, 30),
    ("prefetch", "util/transfer.py", 470, 30),
    ("ClickTitles.inputs", "stages/parts/click_task.py", 790, 30),
    ("train_step", "train/loop.py", 150, 150),
    ("EngineCore.forward", "engines/core.py", 470, 150),
    ("Stage2Module.forward", "stages/stage2.py", 790, 150),
    ("NewsEncoder.forward", "models/recommender.py", 790, 270),
    ("Encoder.forward_ordered", "models/transformer.py", 470, 270),
    ("linear, attention, pooling", "kernels/dispatch.py, attention.py", 150, 270),
    ("stage2_loss", "losses/stage2.py, common.py", 790, 390),
    ("EngineCore.backward", "engines/core.py", 470, 390),
    ("EngineCore.step", "engines/core.py", 150, 390),
]
# from, to, label
ARROWS = [
    (0, 1, "batch: news ids"),
    (1, 2, "in a thread ahead"),
    (3, 4, "inputs"),
    (4, 5, "autocast"),
    (5, 6, "distinct titles"),
    (6, 7, "tokens [T]"),
    (7, 8, "states [T, d]"),
    (6, 9, "news [U, D], users [B, D], scores [B, C]"),
    (9, 10, "loss: this rank's share"),
    (10, 11, "gradients, summed"),
]
W, H = 230, 54


def main() -> None:
    """Write the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img">',
        "<title>The way of the data through one stage-2 step</title>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#3f51b5"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    line = 'fill="none" stroke="#3f51b5" stroke-width="1.6" marker-end="url(#a)"'
    for start, end, label in ARROWS:
        (_, _, x0, y0), (_, _, x1, y1) = BOXES[start], BOXES[end]
        if y0 == y1:
            side = 1 if x1 > x0 else -1
            parts.append(f'<path d="M{x0 + side * W // 2} {y0 + H // 2}H{x1 - side * W // 2}" {line}/>')
            parts.append(_text((x0 + x1) // 2, y0 + H + 16, label))
        else:
            parts.append(f'<path d="M{x0} {y0 + H}V{y1}" {line}/>')
            parts.append(_text(x0 - 8, (y0 + H + y1) // 2 + 4, label, "end"))
    # Inputs that were laid out ahead come back to the loop, and the updated weights to the next step.
    parts.append(f'<path d="M790 {30 + H}V118H150V150" {line}/>' + _text(470, 133, "ClickInputs on the device"))
    parts.append(f'<path d="M150 {390 + H}V480H20V177H35" {line}/>' + _text(30, 498, "next step", "start"))
    tables = "Tables on the device, made before the first step: frozen layers' states, teachers' news, users and logits"
    parts.append('<rect x="300" y="472" width="610" height="50" rx="6" fill="#eceff1" stroke="#90a4ae"/>')
    parts.append(_text(605, 494, tables.split(": ")[0] + ":") + _text(605, 512, tables.split(": ")[1]))
    for name, file, x, y in BOXES:
        parts.append(
            f'<rect x="{x - W // 2}" y="{y}" width="{W}" height="{H}" rx="6" fill="#e8eaf6" stroke="#3f51b5"/>'
            f'<text x="{x}" y="{y + 23}" text-anchor="middle" font-size="14" font-weight="bold">{name}</text>'
            f'<text x="{x}" y="{y + 42}" text-anchor="middle" font-size="12" fill="#37474f">{file}</text>'
        )
    path = Path(__file__).with_name("step.svg")
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _text(x: int, y: int, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="12" fill="#1a237e">{text}</text>'


if __name__ == "__main__":
    main()
