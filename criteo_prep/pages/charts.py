"""Charts as Vega-Lite specifications, made with altair. criteo_prep.pages.page shows them; each has its data inside.

Colours are left to the page, which has a light and a dark scheme: a chart says which colour of the scheme a curve has.
"""

import bisect
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from criteo_prep.pages.numbers import number_text, thinned, usual_top

HEIGHT = 240  # pixels of a chart; the page decides the width
_MOST_POINTS = 400  # points of a curve; about as many as the plot has pixels
_MOST_HOVERS = 200  # places of the x axis that show their values under the mouse
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
      y_format: form of the numbers of the y axis, in the language of d3-format.
    """

    x_name: str
    unit: str
    from_zero: bool = False
    cut_peaks: bool = False
    logarithmic: bool = False
    y_format: str = "~s"


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
      marks: places of dashed lines on the x axis.
      notes: more lines of the text under the mouse: title -> text for each x.
    """
    alt = altair()
    ys = [y for curve in curves for _, y in curve.points]
    top = usual_top(ys) if axes.cut_peaks else max(ys)
    cut = f" (peaks up to {number_text(max(ys))} are cut off)" if top < max(ys) else ""
    y_scale = {"zero": axes.from_zero, "nice": True} | ({"domainMax": top, "clamp": True} if cut else {})
    x = alt.X("x:Q", title=axes.x_name + cut, scale=alt.Scale(nice=False, **_x_scale(axes, curves)))
    x_axis = alt.Axis(grid=False, tickCount=5, labelFlush=True, format="~s" if axes.logarithmic else ",d")
    y = alt.Y("y:Q", title=axes.unit, scale=alt.Scale(**y_scale), axis=alt.Axis(tickCount=6, format=axes.y_format))
    few = max(len(curve.points) for curve in curves) <= 40
    lines = (
        alt.Chart(alt.NamedData("curves"))
        .mark_line(point={"size": 14} if few else False, strokeWidth=1.8, clip=True)
        .encode(x=x.axis(x_axis), y=y, detail="name:N", **_styles(curves))
    )
    fields = [alt.Tooltip("x:Q", title=axes.x_name, format=",~r" if axes.logarithmic else ",d")]
    fields += [alt.Tooltip(f"v{i}:N", title=curve.name) for i, curve in enumerate(curves)]
    fields += [alt.Tooltip(f"n{i}:N", title=title) for i, title in enumerate(notes or {})]
    under = alt.selection_point(name="under", fields=["x"], on="pointerover", clear="pointerout", empty=False)
    # A strip for each place, as high as the plot: the selection "nearest" of Vega-Lite shows no text.
    strips = (
        alt.Chart(alt.NamedData("hovers"))
        .mark_rect()
        .encode(
            x="from:Q",
            x2="to:Q",
            opacity=alt.when(under).then(alt.value(0.15)).otherwise(alt.value(0)),
            tooltip=fields,
        )
        .add_params(under)
    )
    layers = [lines, strips]
    if marks:
        layers.append(alt.Chart(alt.NamedData("marks")).mark_rule(strokeDash=[2, 4], opacity=0.7).encode(x="x:Q"))
    data = {
        "curves": [
            {"x": x, "y": y, "name": curve.name, "colour": curve.colour, "dash": curve.dash}
            for curve in curves
            for x, y in thinned(curve.points, _MOST_POINTS)
        ],
        "hovers": _hovers(axes, curves, notes=notes or {}),
        "marks": [{"x": x} for x in marks],
    }
    return _finished(alt.layer(*layers), data)


def _x_scale(axes: Axes, curves: Sequence[Curve]) -> dict:
    """The scale of the x axis; around a single place there is room on both sides."""
    scale: dict = {"type": "log"} if axes.logarithmic else {"type": "linear", "zero": False}
    places = {x for curve in curves for x, _ in curve.points}
    if len(places) == 1:
        (x,) = places
        scale["domain"] = [x / 2, x * 2] if axes.logarithmic else [x - 1, x + 1]
    return scale


def _styles(curves: Sequence[Curve]) -> dict:
    """The encodings of colour and dashes, with a legend where there are several."""
    alt = altair()
    colours = list(dict.fromkeys(curve.colour for curve in curves))
    dashes = list(dict.fromkeys(curve.dash for curve in curves))
    same = len({(curve.colour, curve.dash) for curve in curves}) == max(len(colours), len(dashes))
    legend = alt.Legend(title=None, orient="top", direction="vertical", labelLimit=2 * _LABEL_PIXELS)
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
    low, high = _x_scale(axes, curves).get("domain", (places[0], max(curve.points[-1][0] for curve in curves)))
    rows = []
    for x, start, stop in zip(places, [low, *middles], [*middles, high], strict=True):
        row: dict = {"x": x, "from": start, "to": stop}
        for i, curve in enumerate(curves):
            place = bisect.bisect_right(curve.points, x, key=lambda point: point[0])
            row[f"v{i}"] = number_text(curve.points[place - 1][1]) if place else "–"
        row |= {f"n{i}": texts.get(x, "–") for i, texts in enumerate(notes.values())}
        rows.append(row)
    return rows


def histogram_chart(title: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]]) -> dict:
    """Histograms over the same bins, drawn over each other: the first as bars, the others as steps.

    Args:
      title: title of the x axis.
      edges: ends of the n bins, n + 1 of them, ascending.
      shares: name -> share of the values in each bin.
    """
    alt = altair()
    first, *others = shares
    spans = list(zip(edges, edges[1:], strict=False))
    bins = [
        {"from": low, "to": high, "name": first}
        | {f"s{i}": of_bins[number] for i, of_bins in enumerate(shares.values())}
        for number, (low, high) in enumerate(spans)
    ]
    steps = [
        {"from": edge, "share": share, "name": name}  # a last point ends the last step
        for name in others
        for edge, share in zip(edges, [*shares[name], shares[name][-1]], strict=True)
    ]
    tooltip = [alt.Tooltip("from:Q", format=".4~g"), alt.Tooltip("to:Q", format=".4~g")]
    tooltip += [alt.Tooltip(f"s{i}:Q", title=name, format=".3~%") for i, name in enumerate(shares)]
    legend = alt.Legend(title=None, orient="top", symbolType="square") if others else None
    colour = alt.Color("name:N", scale=alt.Scale(domain=[first, *others]), legend=legend)
    x = alt.X("from:Q", title=title, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(grid=False, tickCount=6))
    y_axis = alt.Axis(format=".2~%", tickCount=5)
    layers = [
        alt.Chart(alt.NamedData("bins"))
        .mark_bar(opacity=0.55)
        .encode(
            x=x, x2="to:Q", y=alt.Y("s0:Q", title="share of the values", axis=y_axis), color=colour, tooltip=tooltip
        )
    ]
    if others:
        drawn = alt.Chart(alt.NamedData("steps")).mark_line(interpolate="step-after", strokeWidth=1.6)
        layers.append(drawn.encode(x=x, y=alt.Y("share:Q", title="share of the values", axis=y_axis), color=colour))
    return _finished(alt.layer(*layers), {"bins": bins, "steps": steps})


def bar_chart(axes: Axes, rows: Sequence[tuple[str, float, str]], *, groups: Sequence[str] | None = None) -> dict:
    """A bar for each name.

    Args:
      axes: titles of the two axes; y_format is also the form of the value under the mouse.
      rows: (name, value, note) of each bar, in order; the note is shown under the mouse.
      groups: what the colour of each bar stands for.
    """
    alt = altair()
    names = [name for name, _, _ in rows]
    groups = groups or [""] * len(rows)
    legend = alt.Legend(title=None, orient="top") if len(set(groups)) > 1 else None
    tooltip = [alt.Tooltip("name:N", title=axes.x_name), alt.Tooltip("value:Q", title=axes.unit, format=axes.y_format)]
    chart = (
        alt.Chart(alt.NamedData("bars"))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("name:N", title=axes.x_name, sort=names, axis=alt.Axis(labelLimit=110, labelAngle=-40)),
            y=alt.Y("value:Q", title=axes.unit, axis=alt.Axis(format=axes.y_format, tickCount=6)),
            color=alt.Color("group:N", sort=list(dict.fromkeys(groups)), legend=legend),
            tooltip=[*tooltip, alt.Tooltip("note:N", title="rows")],
        )
    )
    data = [
        {"name": name, "value": value, "note": note, "group": group}
        for (name, value, note), group in zip(rows, groups, strict=True)
    ]
    return _finished(chart, {"bars": data})


def _finished(chart, data: dict[str, list[dict]]) -> dict:
    """The specification with its data. Its data are added last, because altair checks every value that it is given."""
    document = chart.properties(width="container", height=HEIGHT).to_dict()
    document.pop("config", None)  # the page's
    document["datasets"] = {name: rows for name, rows in data.items() if rows}
    return document
