import json
import re
import sys

import pytest

from criteo_prep.pages import page
from criteo_prep.pages.charts import Axes, Curve, NoChartLibraryError, line_chart
from criteo_prep.pages.page import BEGINNING, Page

NASTY = "</script><b>&\ud800"


def test_text_of_a_user_stays_text():
    made = Page(NASTY)
    made.note(NASTY)
    made.table(["", NASTY], [[NASTY, NASTY]])
    made.figures([(NASTY, line_chart(Axes("step", NASTY), [Curve(NASTY, [(1, 1.0)], NASTY)]), NASTY)])
    text = made.text()
    assert text.startswith(BEGINNING) and "<b>" not in text
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "script>" not in outside.replace("&lt;/script&gt;", "").replace("noscript>", "")
    chart = json.loads(re.search(r'id="chart-0">(.*?)</script>', text, re.S)[1])
    assert chart["datasets"]["curves"][0]["name"] == NASTY


def test_a_page_without_charts_has_no_script():
    made = Page("words")
    made.note("only words")
    assert "<script" not in made.text()


def test_charts_of_a_version_that_is_not_drawn_are_refused(monkeypatch):
    class Newer:
        SCHEMA_VERSION = "v99.1.0"

    page._library.cache_clear()
    monkeypatch.setattr(page, "altair", lambda: Newer)
    with pytest.raises(
        NoChartLibraryError, match="Vega-Lite 99.1, which the installed vl-convert-python does not draw"
    ):
        page._library()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(NoChartLibraryError, match="need the package vl-convert-python. Install it: pip install"):
        page._library()
