"""Histograms and bars as Vega-Lite specifications; see criteo_prep.pages.charts."""

import functools
from collections.abc import Mapping, Sequence

from criteo_prep.pages.charts import Axes, altair, checked, with_data


def histogram_chart(title: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]]) -> dict:
    """Histograms over the same bins, drawn over each other: the first as bars, the others as steps.

    Args:
      title: title of the x axis.
      edges: ends of the n bins, n + 1 of them, ascending.
      shares: name -> share of the values in each bin.
    """
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
    return with_data(_histogram_form(title, tuple(shares)), {"bins": bins, "steps": steps})


@functools.cache
def _histogram_form(title: str, names: tuple[str, ...]) -> dict:
    alt = altair()
    tooltip = [alt.Tooltip("from:Q", format=".4~g"), alt.Tooltip("to:Q", format=".4~g")]
    tooltip += [alt.Tooltip(f"s{i}:Q", title=name, format=".3~%") for i, name in enumerate(names)]
    legend = alt.Legend(title=None, orient="top", symbolType="square") if len(names) > 1 else None
    colour = alt.Color("name:N", scale=alt.Scale(domain=list(names)), legend=legend)
    x_form = {"scale": alt.Scale(zero=False, nice=False), "axis": alt.Axis(grid=False, tickCount=6)}
    x, bins = alt.X("from:Q", title=title, **x_form), alt.X("from:Q", title=title, bin="binned", **x_form)
    y_axis = alt.Axis(format=".2~%", tickCount=5)
    layers = [
        alt.Chart(alt.NamedData("bins"))
        .mark_bar(opacity=0.55)
        .encode(
            x=bins, x2="to:Q", y=alt.Y("s0:Q", title="share of the values", axis=y_axis), color=colour, tooltip=tooltip
        )
    ]
    if len(names) > 1:
        drawn = alt.Chart(alt.NamedData("steps")).mark_line(interpolate="step-after", strokeWidth=1.6)
        layers.append(drawn.encode(x=x, y=alt.Y("share:Q", title="share of the values", axis=y_axis), color=colour))
    return checked(alt.layer(*layers))


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
    legend = alt.Legend(title=None, orient="top", symbolType="square") if len(set(groups)) > 1 else None
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
    return with_data(checked(chart), {"bars": data})
