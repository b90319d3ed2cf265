"""Draws docs/picture.svg, what TRAIL does, on four requests and one slot: `python docs/draw_picture.py`."""

from pathlib import Path

PICTURE = Path(__file__).parent / "picture.svg"
REQUESTS = (("A", 8, "--a"), ("B", 2, "--b"), ("C", 1, "--c"), ("D", 4, "--d"))
"""Name, tokens left in units of the picture, colour; in order of arrival."""
MIDDLE = 'text-anchor="middle"'
UNIT, LEFT, BAR = 54, 24, 30
STYLE = """
    svg { --ink: #1f2937; --soft: #6b7280; --paper: #ffffff; --line: #d1d5db; --box: #f3f4f6;
          --a: #94a3b8; --b: #0d9488; --c: #2563eb; --d: #b45309; }
    @media (prefers-color-scheme: dark) {
      svg { --ink: #e5e7eb; --soft: #9ca3af; --paper: #111827; --line: #4b5563; --box: #1f2937;
            --a: #64748b; --b: #14b8a6; --c: #3b82f6; --d: #d97706; } }
    text { font: 14px system-ui, sans-serif; fill: var(--ink); }
    .soft { fill: var(--soft); font-size: 13px; } .name { fill: #ffffff; font-weight: 600; }
    .box { fill: var(--box); stroke: var(--line); }
    .arrow { stroke: var(--soft); stroke-width: 1.5; fill: none; marker-end: url(#head); }"""


def text(x: float, y: float, words: str, more: str = "") -> str:
    """A line of text whose baseline is at `y`."""
    return f'<text x="{x:g}" y="{y:g}"{" " + more if more else ""}>{words}</text>'


def box(x: int, title: str, below: str, width: int = 190) -> str:
    """A part of the pod with what it does."""
    return (
        f'<rect class="box" x="{x}" y="50" width="{width}" height="58" rx="6"/>'
        + text(x + width / 2, 74, title, MIDDLE)
        + text(x + width / 2, 95, below, f'{MIDDLE} class="soft"')
    )


def arrow(x: int, to: int) -> str:
    """From one part to the next."""
    return f'<path class="arrow" d="M{x} 79 H{to}"/>'


def timeline(y: int, title: str, order: tuple[tuple[str, int, str], ...]) -> str:
    """One slot's requests one after another, and when they end on average, in units of the picture."""
    parts, start, ends = [], 0, []
    for name, tokens, colour in order:
        x, width = LEFT + start * UNIT, tokens * UNIT
        place = f'x="{x}" y="{y}" width="{width - 3}" height="{BAR}" rx="4"'
        parts.append(f'<rect {place} style="fill: var({colour})"/>')
        parts.append(text(x + (width - 3) / 2, y + 20, name, f'{MIDDLE} class="name"'))
        start += tokens
        ends.append(start)
    mean = sum(ends) / len(ends)
    return "\n  ".join([text(LEFT, y - 12, f"{title}: four answers end after {mean:g} on average"), *parts])


def draw() -> str:
    """The picture as SVG."""
    shortest = tuple(sorted(REQUESTS, key=lambda request: request[1]))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 290" role="img">
  <title>The sidecar reads hidden states, predicts the tokens left, and vLLM serves the shortest first</title>
  <style>{STYLE}
  </style>
  <defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
    <path d="M0 0 L8 4 L0 8 z" style="fill: var(--soft)"/></marker></defs>
  <rect x="0.5" y="0.5" width="859" height="289" rx="10" style="fill: var(--paper); stroke: var(--line)"/>
  {text(24, 32, "In one pod, at every step, without vLLM ever waiting:", 'class="soft"')}
  {box(24, "vLLM generates", "hidden states")}
  {arrow(214, 248)}
  {box(250, "sidecar predicts", "tokens left, per request")}
  {arrow(440, 474)}
  {box(476, "sidecar ranks", "shortest first, bounded")}
  {arrow(666, 700)}
  {box(702, "vLLM orders", "its own queue", 134)}
  {timeline(156, "First come, first served", REQUESTS)}
  {timeline(232, "TRAIL", shortest)}
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
