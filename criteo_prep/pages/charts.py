"""Charts as Vega-Lite specifications, made with altair. criteo_prep.pages.page shows them; each has its data inside.

Colours are left to the page, which has a light and a dark scheme: a chart says which colour of the scheme a curve has.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from criteo_prep.pages.numbers import number_text, thinned, usual_top

HEIGHT = 240  # pixels of a chart; the page decides the width
_MOST_POINTS = 400  # points of a curve; about as many as the plot has pixels
_MOST_HOVERS = 200  # places of the x axis that show their values under the mouse
_MOST_DOTS = 40  # points of a curve that are shown as dots too
_DASHES = ([1, 0], [6, 4], [2, 3])
_LABEL_PIXELS = 150  # width of a name in a legend


class NoChartLibraryError(ValueError):
    """The packages that draw the charts are not installed."""


@functools.cache
def altair() -> ModuleType:
    """The module altair. Raises NoChartLibraryError where it is not installed."""
    try:
        import altair
    except ImportError:
        raise NoChartLibraryError(
            "charts need the packages altair and vl-convert-python. Install them: pip install 'criteo-dlrm[report]'"
        ) from None
    return altair


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
      name: name of the curve in the text under the mouse.
      points: (x, y), finite numbers, by rising x.
      colour: what the curve's colour stands for, a name in the legend; curves of one name have one colour.
      dash: what the curve's dashes stand for, likewise; "" for a line without dashes.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ""


@dataclass(frozen=True)
class Axes:
    """The axes of a line chart.

    Attributes:
      x_name: title of the x axis.
      unit: title of the y axis.
      from_zero: the y axis begins at 0.
      cut_peaks: the y axis ends below the few values that are far above nearly all others, and a text says so.
      logarithmic: the x axis is logarithmic; all x are positive.
      x_range: begin and end of the x axis, which hold all curves; None for the ends of the curves.
      y_format: form of the numbers of the y axis, in the language of d3-format; "" for plain numbers.
    """

    x_name: str
    unit: str
    from_zero: bool = False
    cut_peaks: bool = False
    logarithmic: bool = False
    x_range: tuple[float, float] | None = None
    y_format: str = ""


def line_chart(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    marks: Sequence[float] = (),
    notes: Mapping[str, Mapping[float, str]] | None = None,
) -> dict:
    """A line chart. The values at the place of the mouse are shown as text.

    Args:
      axes: its axes.
      curves: at least one curve; each has a point.
      marks: places of dashed lines on the x axis; places outside its range are left out.
      notes: more lines of the text under the mouse: title -> text for each x.
    """
    low, high = _x_range(axes, curves)
    marks = [place for place in marks if low <= place <= high]
    ys = [y for curve in curves for _, y in curve.points]
    top = usual_top(ys) if axes.cut_peaks else max(ys)
    cut = f" (peaks up to {number_text(max(ys))} are cut off)" if top < max(ys) else ""
    form = _LineForm(
        dataclasses.replace(axes, x_range=(low, high), y_format=axes.y_format or ("~s" if top >= 1e4 else "")),
        curves=tuple(dataclasses.replace(curve, points=()) for curve in curves),
        notes=tuple(notes or ()),
        x_title=axes.x_name + cut,
        y_range=_y_range(min(ys), top, axes.from_zero) if cut or min(ys) == max(ys) else None,
        has_points=max(len(curve.points) for curve in curves) <= _MOST_DOTS,
        has_marks=bool(marks),
    )
    data = {
        "curves": [
            {"x": x, "y": y, "name": curve.name, "colour": curve.colour, "dash": curve.dash}
            for curve in curves
            for x, y in thinned(curve.points, _MOST_POINTS)
        ],
        "hovers": _hovers(axes, curves, notes=notes or {}),
        "marks": [{"x": x} for x in marks],
    }
    return with_data(_line_form(form), data)


@dataclass(frozen=True)
class _LineForm:
    """What a line chart is without its data. Many charts of a page have the same form, which altair checks once.

    Attributes:
      axes: the axes, with the range of the x axis.
      curves: the curves without points.
      notes: titles of the notes.
      x_title: title of the x axis, with what is cut off.
      y_range: ends of the y axis; None for round numbers around the values.
      has_points: whether each value is shown as a dot.
      has_marks: whether there are marks.
    """

    axes: Axes
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
    x_title: str
    y_range: tuple[float, float] | None
    has_points: bool
    has_marks: bool


@functools.cache
def _line_form(form: _LineForm) -> dict:
    alt = altair()
    axes = form.axes
    y_scale = {"domain": list(form.y_range), "clamp": True} if form.y_range else {"zero": axes.from_zero, "nice": True}
    x_scale = alt.Scale(type="log" if axes.logarithmic else "linear", domain=list(axes.x_range), nice=False)
    x_form = {"tickCount": 5, "labelFlush": True, "labelOverlap": "greedy", "labelSeparation": 6}
    x_axis = alt.Axis(grid=False, format="~s" if axes.logarithmic else ",d", **x_form)
    y_axis = alt.Axis(tickCount=6, **({"format": axes.y_format} if axes.y_format else {}))
    lines = (
        alt.Chart(alt.NamedData("curves"))
        .mark_line(point={"size": 14} if form.has_points else False, strokeWidth=1.8, clip=True)
        .encode(
            x=alt.X("x:Q", title=form.x_title, scale=x_scale, axis=x_axis),
            y=alt.Y("y:Q", title=axes.unit, scale=alt.Scale(**y_scale), axis=y_axis),
            detail="name:N",
            **_styles(form.curves),
        )
    )
    layers = [lines, _strips(form)]
    if form.has_marks:
        layers.append(alt.Chart(alt.NamedData("marks")).mark_rule(strokeDash=[2, 4], opacity=0.7).encode(x="x:Q"))
    return checked(alt.layer(*layers))


def _strips(form: _LineForm):
    """A strip for each place, as high as the plot, which shows its values: "nearest" of Vega-Lite shows no text."""
    alt = altair()
    fields = [alt.Tooltip("x:Q", title=form.axes.x_name, format=",~r" if form.axes.logarithmic else ",d")]
    fields += [alt.Tooltip(f"v{i}:N", title=curve.name) for i, curve in enumerate(form.curves)]
    fields += [alt.Tooltip(f"n{i}:N", title=title) for i, title in enumerate(form.notes)]
    under = alt.selection_point(name="under", fields=["x"], on="pointerover", clear="pointerout", empty=False)
    opacity = alt.when(under).then(alt.value(0.3)).otherwise(alt.value(0))
    strips = alt.Chart(alt.NamedData("hovers")).mark_rect()
    return strips.encode(x="from:Q", x2="to:Q", opacity=opacity, tooltip=fields).add_params(under)


def _x_range(axes: Axes, curves: Sequence[Curve]) -> tuple[float, float]:
    """The ends of the x axis; around a single place there is room on both sides."""
    ends = [point[0] for curve in curves for point in (curve.points[0], curve.points[-1])]
    low, high = axes.x_range or (min(ends), max(ends))
    if low == high:
        return (low / 2, high * 2) if axes.logarithmic else (low - 1, high + 1)
    return low, high


def _y_range(low: float, high: float, from_zero: bool) -> tuple[float, float]:
    """The ends of a y axis for values from low to high; around a single value there is room on both sides."""
    if from_zero:
        low = min(low, 0.0)
    if low == high:
        low, high = (low * 0.9, high * 1.1) if low > 0 else (low * 1.1, high * 0.9) if low < 0 else (0.0, 1.0)
    return low, high


def _styles(curves: Sequence[Curve]) -> dict:
    """The encodings of colour and dashes, with a legend where there are several."""
    alt = altair()
    colours = list(dict.fromkeys(curve.colour for curve in curves))
    dashes = list(dict.fromkeys(curve.dash for curve in curves))
    same = len({(curve.colour, curve.dash) for curve in curves}) == max(len(colours), len(dashes))
    form = {"symbolType": "stroke", "direction": "vertical", "labelLimit": 2 * _LABEL_PIXELS}
    legend = alt.Legend(title=None, orient="top", **form)
    styles = {"color": alt.Color("colour:N", sort=colours, legend=legend if len(colours) > 1 else None)}
    if len(dashes) > 1:
        drawn = [_DASHES[i % len(_DASHES)] for i in range(len(dashes))]
        own = None if same and len(colours) > 1 else legend
        styles["strokeDash"] = alt.StrokeDash(
            "dash:N", sort=dashes, scale=alt.Scale(domain=dashes, range=drawn), legend=own
        )
    return styles


def _hovers(axes: Axes, curves: Sequence[Curve], *, notes: Mapping[str, Mapping[float, str]]) -> list[dict]:
    """A row for each strip of the x axis: its ends, its place, and the last value of each curve up to the place."""
    places = sorted({x for curve in curves for x, _ in curve.points})
    places = places[:: -(-len(places) // _MOST_HOVERS)]
    pairs = zip(places, places[1:], strict=False)
    middles = [math.sqrt(a * b) if axes.logarithmic else (a + b) / 2 for a, b in pairs]
    low, high = _x_range(axes, curves)
    rows = []
    for x, start, stop in zip(places, [low, *middles], [*middles, high], strict=True):
        row: dict = {"x": x, "from": start, "to": stop}
        for i, curve in enumerate(curves):
            place = bisect.bisect_right(curve.points, x, key=lambda point: point[0])
            row[f"v{i}"] = number_text(curve.points[place - 1][1]) if place else "–"
        row |= {f"n{i}": texts.get(x, "–") for i, texts in enumerate(notes.values())}
        rows.append(row)
    return rows


def checked(chart) -> dict:
    """The specification of an altair chart, which altair has checked against the schema of Vega-Lite."""
    document = chart.properties(width="container", height=HEIGHT).to_dict()
    document.pop("config", None)  # the page's
    return document


def with_data(form: dict, data: dict[str, list[dict]]) -> dict:
    """The specification with its data, which altair does not see: it would check every number."""
    return {**form, "datasets": {name: rows for name, rows in data.items() if rows}}
