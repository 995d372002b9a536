"""A bar chart as an SVG: times on a logarithmic axis, in colours that show on light and on dark pages."""

from html import escape
from math import floor, isnan, log10

WIDTH, LEFT, RIGHT, BAR, STEP = 760, 230, 80, 14, 20
TEXT, OURS, RIVALS = "#767d86", "#1f8ae0", "#8f8a80"


def figure(value):
    """Return three digits or more of a number, or what a NaN stands for: the side refuses."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return "refuses" if isnan(value) else f"{value:,.{digits}f}"


def chart(panels, ours):
    """Draw a panel for each title in `panels`, a dict of names and microseconds; mark the names in `ours`."""
    times = [time for panel in panels.values() for time in panel.values() if not isnan(time)]
    low, high = floor(log10(min(times))), log10(max(times))

    def x(time):
        return LEFT + (log10(time) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def text(x, y, content, rest=""):
        return f'<text x="{x:.0f}" y="{y}" {rest}>{escape(content.replace("`", ""))}</text>'

    shapes, y = [], 0
    for title, panel in panels.items():
        y += 24
        shapes.append(text(8, y, f"{title}, µs per call", 'font-weight="bold"'))
        top = y + 10
        bottom = top + STEP * len(panel)
        for decade in range(low, floor(high) + 1):
            at = x(10**decade)
            shapes.append(f'<path d="M{at:.0f} {top}V{bottom}" stroke="{TEXT}" stroke-opacity="0.3"/>')
            shapes.append(text(at, bottom + 16, f"{10**decade:g}", 'text-anchor="middle"'))
        for y, (name, time) in zip(range(top + 3, bottom, STEP), by_time(panel), strict=True):
            end = LEFT if isnan(time) else x(time)
            colour = OURS if name in ours else RIVALS
            shapes.append(text(LEFT - 8, y + 11, name, 'text-anchor="end"'))
            shapes.append(
                f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{colour}"/>'
            )
            shapes.append(text(end + 6, y + 11, figure(time)))
        y = bottom + 28
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="12" fill="{TEXT}">', *shapes, "</svg>\n"])


def by_time(panel):
    return sorted(panel.items(), key=lambda item: (isnan(item[1]), item[1]))
