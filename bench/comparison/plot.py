"""Line charts as SVG."""

from html import escape
from math import floor, log10

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 34, 46
COLOURS = ("#1f6feb", "#bc4c00", "#1a7f37", "#8250df")


def ticks_up_to(highest):
    """Round numbers from 0 to at least `highest`, some five of them."""
    step = 10 ** floor(log10(highest))
    for part in (0.2, 0.5, 1, 2):
        if highest / (step * part) <= 6:
            step *= part
            break
    count = int(highest / step - 1e-9) + 1
    return [step * i for i in range(count + 1)]


def line_chart(title, x_name, y_name, series):
    """An SVG document. `series` has names and lists of (x, y), all of them positive; both axes begin at 0."""
    points = [point for _, line in series for point in line]
    x_ticks, y_ticks = ticks_up_to(max(x for x, _ in points)), ticks_up_to(max(y for _, y in points))

    def place(x, y):
        across, up = x / x_ticks[-1], y / y_ticks[-1]
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def text(x, y, what, anchor="middle", more=""):
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(what)}</text>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#24292f">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(WIDTH / 2, 20, title, more=' font-size="14"'),
        text(WIDTH / 2, HEIGHT - 8, x_name),
        text(14, HEIGHT / 2, y_name, more=f' transform="rotate(-90 14 {HEIGHT / 2})"'),
    ]
    for y in y_ticks:
        _, at = place(0, y)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        out.append(text(LEFT - 6, at + 4, f"{y:g}", "end"))
    for x in x_ticks:
        out.append(text(place(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:g}"))
    for number, (name, line) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(x, y) for x, y in sorted(line)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        if len(series) > 1:
            out.append(text(LEFT + 10, TOP + 14 + 16 * number, name, "start", f' style="fill:{colour}"'))
    return "\n".join([*out, "</svg>", ""])
