"""Line charts as SVG text: axes with units, and the values under the mouse as text. No script, no TensorFlow.

Colours and line styles are classes, `c0` to `c5` and `d0` to `d2`; STYLE draws them, for light and dark pages.
"""

import bisect
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_COLOURS, NUM_DASHES = 6, 3
_WIDTH, _HEIGHT = 420, 250  # size of the drawing, which a page scales
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 8, 42  # margins of the plot
_MOST_POINTS = 800  # points of a curve; more than the plot has pixels
_MOST_HOVERS = 120  # stretches of the x axis that show their values under the mouse

STYLE = """
:root { --c0: #1f5fbf; --c1: #c2500a; --c2: #1d7d46; --c3: #9a3fa8; --c4: #b0243f; --c5: #00707d; --grid: #dcdfe4; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #7fb0ff; --c1: #ffa263; --c2: #6fd39a; --c3: #dd9bea; --c4: #ff8fa3; --c5: #5fd0dd; --grid: #3a3f47; }
}
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: currentColor; font-size: 13px; }
svg .y { text-anchor: end; dominant-baseline: middle; }
svg .x, svg .unit { text-anchor: middle; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .mark { stroke: currentColor; stroke-width: 1; stroke-dasharray: 2 4; opacity: .7; }
svg .curve { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
svg .dot { fill: var(--c); }
svg .hover { fill: transparent; }
svg .hover:hover { fill: currentColor; fill-opacity: .12; }
.d1 { stroke-dasharray: 6 4; } .d2 { stroke-dasharray: 2 3; }
"""


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
      name: name of the curve in the text under the mouse.
      points: (x, y), finite numbers, by rising x.
      colour, dash: numbers of the classes `c` and `d`.
    """

    name: str
    points: list[tuple[float, float]]
    colour: int = 0
    dash: int = 0


@dataclass(frozen=True)
class Axes:
    """The axes of a chart.

    Attributes:
      x_name: unit of the x axis.
      x_range: begin and end of the x axis, which holds all curves.
      unit: unit of the y axis.
      from_zero: the y axis begins at 0.
      cut_peaks: the y axis ends below the few values that are far above nearly all others, and a text says so.
    """

    x_name: str
    x_range: tuple[float, float]
    unit: str
    from_zero: bool = False
    cut_peaks: bool = False


def line_chart(title: str, axes: Axes, *, curves: Sequence[Curve], marks: Sequence[float] = ()) -> str:
    """An <svg> element.

    Args:
      title: title for readers who cannot see the chart.
      axes: its axes.
      curves: at least one curve; each has a point.
      marks: places of dashed lines on the x axis.
    """
    ys = [y for curve in curves for _, y in curve.points]
    left, right = axes.x_range
    if left == right:
        left, right = left - 1, right + 1
    top = _usual_top(ys) if axes.cut_peaks else max(ys)
    low, high = _padded(min(ys), top, axes.from_zero)
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        below_top = (high - min(y, high)) / (high - low)
        return _LEFT + (x - left) / (right - left) * plot_width, _TOP + below_top * plot_height

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    floor = _TOP + plot_height
    texts, y_ticks = ticks(low, high, most=6)
    for text, y in zip(texts, y_ticks, strict=True):
        height = at(left, y)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 6}" y="{height:.1f}">{text}</text>')
    for text, x in zip(*ticks(left, right, most=5, whole=True), strict=True):
        place = at(x, low)[0]
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text class="x" x="{place:.1f}" y="{floor + 17}">{text}</text>')
    x_text = html.escape(axes.x_name) + (f" (peaks up to {number_text(max(ys))} are cut off)" if top < max(ys) else "")
    parts.append(f'<text class="unit" x="{_LEFT + plot_width / 2}" y="{_HEIGHT - 5}">{x_text}</text>')
    middle = _TOP + plot_height / 2
    parts.append(f'<text class="unit" transform="translate(12 {middle}) rotate(-90)">{html.escape(axes.unit)}</text>')
    for x in marks:
        if left <= x <= right:
            place = at(x, low)[0]
            parts.append(f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{floor}"/>')
    for curve in curves:
        places = [at(x, y) for x, y in thinned(curve.points, _MOST_POINTS)]
        style = f"c{curve.colour % NUM_COLOURS}"
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve {style} d{curve.dash % NUM_DASHES}" points="{line}"/>')
        if len(places) <= 40:
            parts += [f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places]
    for start, stop, text in _hovers(axes.x_name, curves):
        start, stop = max(left, start), min(right, stop)
        begin, end = at(start, low)[0], at(stop, low)[0]
        parts.append(
            f'<rect class="hover" x="{begin:.1f}" y="{_TOP}" width="{max(1, end - begin):.1f}" '
            f'height="{plot_height}"><title>{html.escape(text)}</title></rect>'
        )
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, *, most: int, whole: bool = False) -> tuple[list[str], list[float]]:
    """About `most` round numbers from `low` to `high`, as text and as numbers; whole numbers only with `whole`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    numbers = [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    largest = max((abs(number) for number in numbers), default=0.0)
    size, suffix = next((pair for pair in ((1e9, "G"), (1e6, "M"), (1e4, "k")) if largest >= pair[0]), (1.0, ""))
    size = 1e3 if suffix == "k" else size
    if 0 < largest < 1e-3:
        return [f"{number:.3g}" for number in numbers], numbers
    decimals = max(0, -math.floor(math.log10(step / size) + 1e-9))
    return [f"{number / size:,.{decimals}f}{suffix}" if number else "0" for number in numbers], numbers


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """About `most` of the points: the lowest and the highest point of each stretch, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    kept = []
    num_stretches = most // 2
    for number in range(num_stretches):
        stretch = range(number * len(points) // num_stretches, (number + 1) * len(points) // num_stretches)
        lowest = min(stretch, key=lambda i: points[i][1])
        highest = max(stretch, key=lambda i: points[i][1])
        kept += [points[i] for i in sorted({lowest, highest})]
    return [points[0], *kept[1:-1], points[-1]] if len(kept) > 2 else kept


def number_text(value: float) -> str:
    """A number as text: five significant digits, and no fraction after a large number."""
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.5g}" if abs(value) < 1e3 else f"{value:,.1f}"


def _padded(low: float, high: float, from_zero: bool) -> tuple[float, float]:
    """The range of an axis for these values."""
    if from_zero:
        low = min(low, 0.0)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return (low if from_zero and low == 0.0 else low - room), high + room


def _usual_top(values: Sequence[float]) -> float:
    """The largest value; or if nearly all values are far below it, 1.5 times their largest."""
    usual = sorted(values)[int(0.95 * (len(values) - 1))]
    return max(values) if max(values) <= 4 * usual else 1.5 * usual


def _hovers(x_name: str, curves: Sequence[Curve]) -> list[tuple[float, float, str]]:
    """(start, stop, text): the values of the curves in each stretch of the x axis."""
    places = sorted({x for curve in curves for x, _ in curve.points})
    places = places[:: -(-len(places) // _MOST_HOVERS)]
    middles = [(a + b) / 2 for a, b in zip(places, places[1:], strict=False)]
    hovers = []
    for x, start, stop in zip(places, [-math.inf, *middles], [*middles, math.inf], strict=True):
        words = [f"{x_name} {x:,.0f}"]
        for curve in curves:
            number = bisect.bisect_left(curve.points, (x,))
            near = [point for point in curve.points[max(0, number - 1) : number + 1] if start <= point[0] <= stop]
            if near:
                words.append(f"{curve.name}: {number_text(min(near, key=lambda point: abs(point[0] - x))[1])}")
        hovers.append((start, stop, "\n".join(words)))
    return hovers
