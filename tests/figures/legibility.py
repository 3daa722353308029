"""Whether a figure can be read: nothing leaves the page, and no text stands over other text."""

from __future__ import annotations

import io
import itertools

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def beyond(axis) -> list[Text]:
    """Labels of ticks that lie beyond the axis, which matplotlib keeps but does not draw."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-6 * (high - low)
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [t.label1 for t in ticks if not low - slack <= t.get_loc() <= high + slack]


def legible(figure: Figure) -> list[str]:
    """Complaints: text or anything else outside the page, or text over other text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert len(buffer.getvalue()) > 5000
    renderer = RendererAgg(figure.bbox.width, figure.bbox.height, figure.dpi)
    page = figure.bbox
    undrawn = {
        id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in beyond(axis)
    }
    boxes = []
    for text in figure.findobj(Text):
        if not text.get_visible() or not text.get_text().strip() or id(text) in undrawn:
            continue
        box = Text.get_window_extent(text, renderer)  # of an annotation the words, without its arrow
        if box.width and box.height:
            boxes.append((text.get_text(), text.get_rotation(), box))
    complaints = [
        f"{words!r} leaves the page"
        for words, _, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1
    ]
    drawn, dpi = figure.get_tightbbox(), figure.dpi
    if min(drawn.x0, drawn.y0) * dpi < -1 or drawn.x1 * dpi > page.x1 + 1 or drawn.y1 * dpi > page.y1 + 1:
        complaints.append(f"{drawn} leaves the page")
    for (first, turned, a), (second, turned_too, b) in itertools.combinations(boxes, 2):
        if turned % 90 or turned_too % 90:
            continue  # the box of slanted text is larger than the text
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 2 and down > 0.35 * min(a.height, b.height):
            complaints.append(f"{first!r} over {second!r}")
    return complaints
