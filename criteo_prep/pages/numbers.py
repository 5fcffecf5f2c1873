"""Numbers as people read them, and long curves as a chart needs them. Nothing is imported."""

import math
from collections.abc import Sequence

_NOTHING = "–"


def number_text(value: float) -> str:
    """A number as text: five significant digits, and no fraction after a large number."""
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.5g}" if abs(value) < 1e3 else f"{value:,.1f}"


def share_text(share: float | None) -> str:
    """A share as percents with three significant digits: "12.3 %", "0.0456 %"; "–" for a share that is not known."""
    if share is None:
        return _NOTHING
    percents = 100 * share
    if share and abs(percents) < 1e-3:
        return "< 0.001 %"
    decimals = 0 if not percents else max(0, 2 - math.floor(math.log10(abs(percents))))
    return f"{percents:.{min(decimals, 5)}f} %"


def count_text(count: int | None) -> str:
    """A whole number with commas; "–" for a number that is not known."""
    return _NOTHING if count is None else f"{count:,}"


def decimal_text(value: float | None) -> str:
    """A number with three digits after the point; "–" for a number that is not known."""
    return _NOTHING if value is None else f"{value:.3f}"


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


def usual_top(values: Sequence[float]) -> float:
    """The largest value; or if nearly all values are far below it, 1.5 times their largest."""
    usual = sorted(values)[int(0.95 * (len(values) - 1))]
    return max(values) if max(values) <= 4 * usual else 1.5 * usual
