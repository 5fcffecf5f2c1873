"""One HTML page that needs no other file and no network: text, tables, and charts that a script inside it draws.

The script is Vega-Lite's, which vl-convert-python brings along. A chart is drawn when it comes near the visible part of
the page, and again when the reader changes between light and dark.
"""

import functools
import html
import json
from collections.abc import Sequence

from criteo_prep.pages.charts import NoChartLibraryError, altair

BEGINNING = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'  # of every page
# A browser that reads this fetches nothing. Vega compiles its expressions, which is called eval.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2128; --soft: #59636e; --card: #f6f8fa; --grid: #dcdfe4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181d; --ink: #e3e8ee; --soft: #9aa5b1; --card: #1d2229; --grid: #3a3f47; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
.charts { display: grid; gap: 1rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .5rem; min-width: 0; }
.chart { width: 100%; min-height: 240px; } .charts + .wide { margin-top: 1rem; }
.note { color: var(--soft); margin: .25rem 0; overflow-wrap: anywhere; max-width: 62rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
.text th, .text td { overflow-wrap: anywhere; }
.numbers td, .numbers thead th { text-align: right; } .numbers td { white-space: nowrap; }
.numbers thead th { vertical-align: bottom; font-weight: 600; }
.numbers th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
details { margin-top: 1.5rem; } summary { cursor: pointer; }
#vg-tooltip-element { font: 13px/1.4 system-ui, sans-serif; max-width: 90vw; }
"""

_SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
const colours = on => on
  ? ["#7fb0ff", "#ffa263", "#6fd39a", "#dd9bea", "#ff8fa3", "#5fd0dd"]
  : ["#1f5fbf", "#c2500a", "#1d7d46", "#9a3fa8", "#b0243f", "#00707d"];
function settings(on) {
  const ink = on ? "#e3e8ee" : "#1c2128", soft = on ? "#9aa5b1" : "#59636e", grid = on ? "#3a3f47" : "#dcdfe4";
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: null, font, view: { stroke: null }, range: { category: colours(on) }, rule: { color: ink },
    autosize: { type: "fit", contains: "padding" },
    axis: { labelColor: soft, titleColor: soft, gridColor: grid, domainColor: grid, tickColor: grid, labelFontSize: 12,
      titleFontSize: 12, titleFontWeight: "normal", titlePadding: 6 },
    legend: { labelColor: ink, labelFontSize: 12, symbolStrokeWidth: 2.5, padding: 0, offset: 6 },
  };
}
function draw(place) {
  const chart = JSON.parse(document.getElementById("chart-" + place.dataset.chart).textContent);
  const options = { actions: false, renderer: "svg", config: settings(dark.matches),
    tooltip: { theme: dark.matches ? "dark" : "light" } };
  place.drawn = vegaEmbed(place, chart, options).catch(error => { place.textContent = String(error); });
}
const places = [...document.querySelectorAll(".chart")];
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries)
    if (entry.isIntersecting && !entry.target.drawn) draw(entry.target);
}, { rootMargin: "600px" });
places.forEach(place => watcher.observe(place));
const redraw = changed => places.filter(place => place.drawn || changed).forEach(draw);
dark.addEventListener("change", () => redraw(false));
addEventListener("beforeprint", () => redraw(true));
"""


class Page:
    """Collects the parts of a page.

    Args:
      title: title of the page, and its heading.
    """

    def __init__(self, title: str):
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]
        self._charts: list[dict] = []

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def note(self, text: str) -> None:
        """A line of small text."""
        self._parts.append(f'<p class="note">{html.escape(text)}</p>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> None:
        """A table; the first cell of each row is its name.

        Args:
          head: titles of the columns; empty for a table without.
          rows: texts of the cells.
          numbers: whether the cells are numbers, which stand on the right.
        """
        self._parts.append(table(head, rows, numbers=numbers))

    def details(self, summary: str, content: str) -> None:
        """Content, as HTML, that is shown after a click on its summary."""
        self._parts.append(f"<details><summary>{html.escape(summary)}</summary>{content}</details>")

    def figures(self, figures: Sequence[tuple[str, dict, str]]) -> None:
        """Charts next to each other: (title, chart, note) of each; see criteo_prep.pages.charts."""
        drawn = []
        for title, chart, note in figures:
            line = f'<p class="note">{html.escape(note)}</p>' if note else ""
            drawn.append(
                f"<figure><h3>{html.escape(title)}</h3>{line}"
                f'<div class="chart" data-chart="{len(self._charts)}" role="img" aria-label="{html.escape(title)}">'
                "</div></figure>"
            )
            self._charts.append(chart)
        self._parts.append(f'<div class="charts">{"".join(drawn)}</div>')

    def text(self) -> str:
        """The page, as HTML text. Raises NoChartLibraryError where the packages for charts are not installed."""
        charts = "\n".join(
            f'<script type="application/json" id="chart-{number}">{_json(chart)}</script>'
            for number, chart in enumerate(self._charts)
        )
        scripts = f"{charts}\n<script>{_library()}</script>\n<script>{_SCRIPT}</script>" if self._charts else ""
        return (
            f"{BEGINNING}{html.escape(self._title)}</title>"
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
            f"<body>\n{chr(10).join(self._parts)}\n"
            "<noscript><p>The charts of this page are drawn by a script inside it.</p></noscript>\n"
            f"{scripts}\n</body></html>\n"
        )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """A table as HTML; see Page.table."""
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = []
    for name, *cells in rows:
        line = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{html.escape(name)}</th>{line}</tr>")
    top = f"<thead><tr>{titles}</tr></thead>" if head else ""
    return f'<div class="wide"><table class="{"numbers" if numbers else "text"}">{top}{"".join(lines)}</table></div>'


def _json(chart: dict) -> str:
    """A chart as JSON that can stand in a script: no text in it ends the script."""
    return json.dumps(chart, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@functools.cache
def _library() -> str:
    """The script that draws charts: Vega, Vega-Lite and Vega-Embed, of the version that altair writes."""
    version = ".".join(altair().SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    try:
        import vl_convert
    except ImportError:
        raise NoChartLibraryError(
            "charts need the package vl-convert-python. Install it: pip install 'criteo-dlrm[report]'"
        ) from None
    if version not in (known := vl_convert.get_vegalite_versions()):
        raise NoChartLibraryError(
            f"the installed altair writes charts for Vega-Lite {version}, which the installed vl-convert-python does "
            f"not draw: it draws {', '.join(known)}. Install matching ones: pip install --upgrade 'criteo-dlrm[report]'"
        )
    return vl_convert.javascript_bundle(vl_version=version).replace("</script", "<\\/script")
