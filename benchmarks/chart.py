"""Draw the rates as a bar chart in SVG, by hand: one logarithmic scale, one panel for each measure."""
from __future__ import annotations

import math
from xml.sax.saxutils import escape

PANELS = ("publish", "receive", "fanout-json", "fanout-reliable")
COLOURS = {"ours": "#1f6f8b", "simplepubsub serve": "#1f6f8b", "official": "#c2571a", "raw socket": "#c9c9c9"}
OTHER = "#8a94a0"
LEFT, WIDTH, BAR, GAP, HEAD = 170, 780, 18, 6, 34


def draw(facts: dict, summaries: dict) -> str:
    """Return the SVG text; measures and contenders without a result are left out."""
    panels = []
    for name in PANELS:
        bars = [
            (contender, row["rate"])
            for contender, row in summaries.get(name, {}).get("contenders", {}).items() if "rate" in row
        ]
        if bars:
            unit = "deliveries/s" if name.startswith("fanout") else "messages/s"
            panels.append(("%s, %s" % (summaries[name]["title"], unit), sorted(bars, key=lambda bar: -bar[1])))
    if not panels:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>\n'
    rates = [rate for _, bars in panels for _, rate in bars]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    high = max(high, low + 1)
    room = WIDTH - LEFT - 90
    tall = 40 + sum(HEAD + len(bars) * (BAR + GAP) + 22 for _, bars in panels)

    def across(value: float) -> float:
        return LEFT + room * (math.log10(value) - low) / (high - low)

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
        'font-family="sans-serif" font-size="12">' % (WIDTH, tall, WIDTH, tall),
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    top = 8
    for title, bars in panels:
        out.append('<text x="10" y="%d" font-size="14" font-weight="bold">%s</text>' % (top + 16, escape(title)))
        top += HEAD
        bottom = top + len(bars) * (BAR + GAP)
        for power in range(low, high + 1):
            at = across(10.0 ** power)
            out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#e3e3e3"/>' % (at, top - 4, at, bottom))
            out.append('<text x="%.1f" y="%d" fill="#777" text-anchor="middle">%s</text>' % (
                at, bottom + 12, "{:,}".format(10 ** power)))
        for name, rate in bars:
            # A log scale has no zero: bars begin at the lowest power of ten shown.
            out.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (LEFT - 8, top + 13, escape(name)))
            out.append('<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>' % (
                LEFT, top, max(across(rate) - LEFT, 1), BAR, COLOURS.get(name, OTHER)))
            out.append('<text x="%.1f" y="%d">%s</text>' % (across(rate) + 5, top + 13, "{:,.0f}".format(rate)))
            top += BAR + GAP
        top = bottom + 22
    note = "logarithmic scale; medians; %s, %s cores (%s)" % (facts["python"], facts["cores"], facts["processor"])
    out.append('<text x="10" y="%d" fill="#777">%s</text>' % (top + 14, escape(note)))
    return "\n".join(out) + "\n</svg>\n"
