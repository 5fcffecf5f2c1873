"""The data of the charts, and that Vega-Lite accepts each form of them."""

import sys

import pytest

from criteo_prep.pages import charts
from criteo_prep.pages.bar_charts import bar_chart, histogram_chart
from criteo_prep.pages.charts import Axes, Curve, NoChartLibraryError, line_chart


def compiled(chart):
    """The chart after Vega-Lite's compiler, which refuses a wrong one."""
    import vl_convert

    named = {layer["data"]["name"] for layer in [chart, *chart.get("layer", [])] if "data" in layer}
    assert named == set(chart["datasets"]), "each layer has its data, and they are inside the chart"
    return vl_convert.vegalite_to_vega(chart, vl_version="6.4")


def test_a_line_chart_by_hand():
    curves = [Curve("a", [(0, 1.0), (10, 3.0)], "a"), Curve("b", [(5, 2.0)], "b", dash="b")]
    chart = line_chart(Axes("step", "nats"), curves, marks=[4], notes={"rows": {0: "7"}})
    assert chart["datasets"] == {
        "curves": [{"x": 0, "y": 1.0, "name": "a", "colour": "a", "dash": ""},
                   {"x": 10, "y": 3.0, "name": "a", "colour": "a", "dash": ""},
                   {"x": 5, "y": 2.0, "name": "b", "colour": "b", "dash": "b"}],
        # The text under the mouse: each strip ends in the middle between two places.
        "hovers": [{"x": 0, "from": 0, "to": 2.5, "v0": "1", "v1": "–", "n0": "7"},
                   {"x": 5, "from": 2.5, "to": 7.5, "v0": "1", "v1": "2", "n0": "–"},
                   {"x": 10, "from": 7.5, "to": 10, "v0": "3", "v1": "2", "n0": "–"}],
        "marks": [{"x": 4}],
    }  # fmt: skip
    lines, strips, _ = chart["layer"]
    assert (lines["encoding"]["x"]["title"], lines["encoding"]["y"]["title"]) == ("step", "nats")
    assert [field["title"] for field in strips["encoding"]["tooltip"]] == ["step", "a", "b", "rows"]
    assert {axis["orient"] for axis in compiled(chart)["axes"]} == {"bottom", "left"}


def test_a_peak_can_be_cut_off():
    points = [(0, 900.0), *((x, 2.0) for x in range(1, 50))]
    scales = []
    for cut_peaks in (True, False):
        chart = line_chart(Axes("step", "u", from_zero=True, cut_peaks=cut_peaks), [Curve("y", points, "y")])
        encoding = chart["layer"][0]["encoding"]
        scales.append((encoding["x"]["title"], encoding["y"]["scale"].get("domain")))
        assert chart["datasets"]["hovers"][0]["v0"] == "900"
        compiled(chart)
    assert scales == [("step (peaks up to 900 are cut off)", [0.0, 3.0]), ("step", None)]


@pytest.mark.parametrize("points", [[(5, 3.0)], [(5, 0.0)], [(1, 2.0), (2, 2.0)]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_single_point_and_a_flat_line_can_be_drawn(points, logarithmic):
    chart = line_chart(Axes("step", "u", logarithmic=logarithmic), [Curve("y", points, "y")])
    low, high = chart["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low <= points[0][1] < high
    ends = [(row["from"], row["to"]) for row in chart["datasets"]["hovers"]]
    assert all(low < high for low, high in ends) and len(ends) == len(points)
    compiled(chart)


def test_strips_of_a_logarithmic_axis_end_in_its_middles():
    chart = line_chart(Axes("T", "u", logarithmic=True), [Curve("y", [(1, 1.0), (100, 0.5)], "y")])
    assert [(row["from"], row["to"]) for row in chart["datasets"]["hovers"]] == [(1, 10), (10, 100)]


def test_a_long_curve_keeps_its_peak():
    points = [(x, 9.0 if x == 4321 else 1.0) for x in range(10_000)]
    data = line_chart(Axes("step", "u"), [Curve("y", points, "y")])["datasets"]
    assert (
        len(data["curves"]) <= 401
        and {"x": 4321, "y": 9.0}.items() <= max(data["curves"], key=lambda p: p["y"]).items()
    )
    assert 100 <= len(data["hovers"]) <= 200


def test_a_histogram_by_hand():
    chart = histogram_chart("value", [0.0, 1.0, 2.0], {"train": [0.25, 0.75], "test": [0.5, 0.5]})
    assert chart["datasets"] == {
        "bins": [{"from": 0.0, "to": 1.0, "name": "train", "s0": 0.25, "s1": 0.5},
                 {"from": 1.0, "to": 2.0, "name": "train", "s0": 0.75, "s1": 0.5}],
        "steps": [{"from": edge, "share": 0.5, "name": "test"} for edge in (0.0, 1.0, 2.0)],
    }  # fmt: skip
    compiled(chart)
    alone = histogram_chart("value", [0.0, 1.0, 2.0], {"train": [0.25, 0.75]})
    assert set(alone["datasets"]) == {"bins"}
    compiled(alone)


def test_bars_by_hand():
    rows = [("day_0", 0.25, "1,000"), ("day_1", 0.5, "10")]
    chart = bar_chart(Axes("file", "label rate", y_format=".1%"), rows, groups=["train", "test"])
    assert chart["datasets"]["bars"] == [
        {"name": "day_0", "value": 0.25, "note": "1,000", "group": "train"},
        {"name": "day_1", "value": 0.5, "note": "10", "group": "test"},
    ]
    compiled(chart)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    charts.altair.cache_clear()
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(NoChartLibraryError, match="need the packages altair and vl-convert-python. Install them: pip"):
        line_chart(Axes("step", "u"), [Curve("y", [(1, 1.0)], "y")])
