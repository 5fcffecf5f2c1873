"""The logs of trainings as one HTML page, which needs no other file and no network. No TensorFlow."""

import html
from collections.abc import Iterable, Sequence

from dlrm_tf2.logs.training_log import TrainingLog
from dlrm_tf2.svg_chart import NUM_COLOURS, STYLE, Axes, Curve, line_chart, number_text

BEGINNING = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'  # of every page
_LONGEST_TEXT = 300  # characters of a value in a table
_TIMES = "Time per step"

# Charts: title, unit, whether the y axis begins at 0, and key of the log -> its name. Each key is one curve.
_CHARTS = (
    ("Training loss", "binary cross entropy (nats)", False, {"loss": "loss"}),
    ("AUC", "area under the ROC curve", False, {"auc": "AUC"}),
    ("Test loss", "binary cross entropy (nats)", False, {"test_loss": "test loss"}),
    ("Normalised entropy", "loss / loss of the click rate", False, {"normalized_entropy": "normalised entropy"}),
    ("Calibration", "mean probability / click rate", False, {"calibration": "calibration"}),
    ("Learning rate", "learning rate", True, {"learning_rate": "learning rate"}),
    ("Throughput", "samples per second", True, {"samples_per_s": "samples/s"}),
    (
        _TIMES,
        "milliseconds",
        True,
        {"step_ms": "whole step", "exchange_ms": "exchange with other ranks", "data_wait_ms": "waiting for data"},
    ),
    ("Memory of the fullest rank", "GiB", True, {"memory_gib": "memory"}),
)

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2128; --soft: #59636e; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --ink: #e3e8ee; --soft: #9aa5b1; --card: #1d2229; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .5rem; min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; margin: 0 0 .25rem; padding: 0; list-style: none;
  font-size: .87rem; overflow-wrap: anywhere; }
.legend svg { display: inline-block; width: 1.6rem; height: .6rem; margin-right: .4rem; }
.note { color: var(--soft); margin: .15rem 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .charts { margin-top: 1rem; } table { border-collapse: collapse; font-size: .87rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--grid); vertical-align: top;
  overflow-wrap: anywhere; } td { font-variant-numeric: tabular-nums; }
details { margin-top: 1.5rem; } summary { cursor: pointer; }
"""


def page(logs: Sequence[TrainingLog]) -> str:
    """The page, as HTML text."""
    title = "Training of " + (logs[0].name if len(logs) == 1 else f"{len(logs)} runs")
    lines = [f"<h1>{html.escape(title)}</h1>"]
    if len(logs) > 1:
        lines.append(_legend((log.name, number, 0) for number, log in enumerate(logs)))
    for log in logs:
        prefix = f"{log.name}: " if len(logs) > 1 else ""
        lines += [f'<p class="note">{html.escape(prefix + note)}</p>' for note in log.notes]
    lines.append(f'<div class="charts">{"".join(_figures(logs))}</div>')
    summaries = [log.summary or {} for log in logs]
    if any(summaries):
        lines.append("<h2>Summary</h2>" + _table(logs, summaries, _keys(summaries)))
    configs = [log.config for log in logs]
    differing = [key for key in _keys(configs) if len({_text(config.get(key)) for config in configs}) > 1]
    if differing:
        lines.append("<h2>Where the configurations differ</h2>" + _table(logs, configs, differing))
    table = _table(logs, configs, sorted(_keys(configs)))
    lines.append(f"<details><summary>Configuration</summary>{table}</details>")
    return (
        f"{BEGINNING}{html.escape(title)}</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(lines)}\n</body></html>\n"
    )


def _figures(logs: Sequence[TrainingLog]) -> list[str]:
    figures = []
    marks = sorted({step for log in logs for step in log.resumed})
    steps = [record["step"] for log in logs for record in log.records]
    for title, unit, from_zero, keys in _CHARTS:
        curves, shown = [], []
        for place, (key, name) in enumerate(keys.items()):
            for number, log in enumerate(logs):
                # Each log has a colour, and each key a dash. With one log, each key has a colour too.
                colour = number if len(logs) > 1 else place
                if points := log.points(key):
                    full_name = f"{log.name}, {name}" if len(logs) > 1 else name
                    curves.append(Curve(full_name, points, colour=colour, dash=place))
                    shown.append((name, colour if len(logs) == 1 else None, place))
        if curves:
            legend = _legend(dict.fromkeys(shown)) if len(keys) > 1 else ""
            # The first steps of a run include their compilation.
            axes = Axes("step", (min(steps), max(steps)), unit=unit, from_zero=from_zero, cut_peaks=title == _TIMES)
            drawing = line_chart(title, axes, curves=curves, marks=marks)
            figures.append(f"<figure><h3>{html.escape(title)}</h3>{legend}{drawing}</figure>")
    return figures


def _legend(entries: Iterable[tuple[str, int | None, int]]) -> str:
    """A legend as an HTML list.

    Args:
      entries: (name, colour, dash) of each line; colour None for the colour of the text.
    """
    lines = []
    for name, colour, dash in entries:
        style, stroke = ("", "currentColor") if colour is None else (f"c{colour % NUM_COLOURS}", "var(--c)")
        line = f'<line class="d{dash}" x1="0" x2="26" y1="5" y2="5" stroke="{stroke}" stroke-width="2.5"/>'
        drawn = f'<svg viewBox="0 0 26 10" aria-hidden="true">{line}</svg>'
        lines.append(f'<li class="{style}">{drawn}{html.escape(name)}</li>')
    return f'<ul class="legend">{"".join(lines)}</ul>'


def _table(logs: Sequence[TrainingLog], values: Sequence[dict], keys: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(log.name)}</th>" for log in logs)
    head = f"<tr><th></th>{head}</tr>" if len(logs) > 1 else ""
    rows = []
    for key in keys:
        cells = "".join(f"<td>{html.escape(_text(values_of_log.get(key)))}</td>" for values_of_log in values)
        rows.append(f"<tr><th>{html.escape(key)}</th>{cells}</tr>")
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _keys(values: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(key for values_of_log in values for key in values_of_log))


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    text = number_text(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
