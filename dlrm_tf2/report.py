"""The program that draws logs of training as one HTML page, which needs nothing else to be looked at.

    python -m dlrm_tf2.report LOG [LOG ...] [-o report.html]

Several logs are drawn over each other. A log may be of a run that still goes on, or that was killed. No TensorFlow.
"""

import argparse
import html
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlrm_tf2.job.program import run_alone
from dlrm_tf2.svg_chart import NUM_COLOURS, STYLE, Curve, line_chart, number_text

_TIMES = "Time per step"

# Charts: title, unit, whether the axis begins at 0, and keys of the log with their names. A chart with several keys
# shows each in a line of its own.
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


class LogError(ValueError):
    """A file is no log of a training."""


@dataclass(frozen=True)
class Log:
    """What a log says.

    Attributes:
      name: for people.
      config, summary: its first line, and the one that a finished run ends with; None for a run that is not finished.
      records: lines that have a step: of training and of evaluations.
      resumed: steps that the run was interrupted after.
      notes: what is odd about it.
    """

    name: str
    config: dict
    records: list[dict] = field(default_factory=list)
    summary: dict | None = None
    resumed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def points(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of a key, by rising step; of a list the largest."""
        found = {}
        for record in self.records:
            value = record.get(key)
            if isinstance(value, list):
                value = max((one for one in value if _is_number(one)), default=None)
            if _is_number(value):
                found[record["step"]] = value
        return sorted(found.items())


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser("dlrm-report", description="Draws logs of training as one HTML page.")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="what --log_path of the trainer named")
    parser.add_argument("-o", "--output", default="report.html", help="file to write (report.html)")
    values = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    return run_alone("dlrm-report", lambda: _write_report(values.logs, values.output))


def _write_report(paths: Sequence[str], output: str) -> None:
    """Draws the logs, and prints a line about each.

    Raises:
      LogError: the output is one of the logs, or a file is not the log of a training.
    """
    if any(Path(output).resolve() == Path(path).resolve() for path in paths):
        raise LogError(f"{output}: is one of the logs. Name another file with -o.")
    logs = [read_log(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    Path(output).write_text(page(logs), encoding="utf-8")
    for log in logs:
        print(f"{log.name}: {', '.join([f'{len(log.records)} records', *log.notes])}")
    print(f"{output}: written")


def read_log(path: str, name: str) -> Log:
    """Reads a log.

    Raises:
      LogError: the file is none, or not of a training.
      OSError: it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise LogError(f"{path}: is not text. A log has one JSON object a line.") from None
    records, notes = [], []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number == len(lines) and records:  # the file does not end with a line break
            notes.append("the last line is cut off and left out")
        else:
            raise LogError(f"{path}, line {number}: is not a JSON object. A log has one a line.")
    if not records:
        raise LogError(f"{path}: is empty. A log begins with the configuration of its run.")
    if not {"mode", "batch_size", "learning_rate"} <= set(records[0]):
        raise LogError(f"{path}: does not begin with the configuration of a run, so it is no log of one.")
    stepped = [record for record in records[1:] if _is_number(record.get("step"))]
    if not stepped:
        mode = records[0]["mode"]
        why = "not one step yet" if mode == "train" else f"no training: it is of --mode {mode}"
        raise LogError(f"{path}: has {why}, so there is nothing to draw.")
    summary = records[-1] if "throughput" in records[-1] else None
    if summary is None:
        notes.append(f"not finished: the last line is of step {stepped[-1]['step']:,}")
    resumed = [record["resumed_step"] for record in records if "resumed_step" in record]
    notes += [f"interrupted, and resumed after step {step:,}" for step in resumed]
    return Log(name, records[0], records=stepped, summary=summary, resumed=resumed, notes=notes)


def page(logs: Sequence[Log]) -> str:
    """The page, as HTML text."""
    title = "Training of " + (logs[0].name if len(logs) == 1 else f"{len(logs)} runs")
    lines = [f"<h1>{html.escape(title)}</h1>"]
    if len(logs) > 1:
        lines.append(_legend((log.name, number, 0) for number, log in enumerate(logs)))
    for log in logs:
        said = [log.name] if len(logs) > 1 else []
        lines += [f'<p class="note">{html.escape(": ".join([*said, note]))}</p>' for note in log.notes]
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
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(lines)}\n</body></html>\n"
    )


def _figures(logs: Sequence[Log]) -> list[str]:
    figures = []
    marks = sorted({step for log in logs for step in log.resumed})
    steps = [record["step"] for log in logs for record in log.records]
    for title, unit, from_zero, keys in _CHARTS:
        curves, shown = [], []
        for place, (key, name) in enumerate(keys.items()):
            for number, log in enumerate(logs):
                # Colours tell logs apart and dashes quantities; of one log, colours tell quantities apart as well.
                colour = number if len(logs) > 1 else place
                if points := log.points(key):
                    full_name = f"{log.name}, {name}" if len(logs) > 1 else name
                    curves.append(Curve(full_name, points, colour=colour, dash=place))
                    shown.append((name, colour if len(logs) == 1 else None, place))
        if curves:
            legend = _legend(dict.fromkeys(shown)) if len(keys) > 1 else ""
            # The first lap of a run holds the compilation of its step.
            cut_peaks = title == _TIMES
            drawing = line_chart(
                title,
                "step",
                x_range=(min(steps), max(steps)),
                unit=unit,
                curves=curves,
                from_zero=from_zero,
                cut_peaks=cut_peaks,
                marks=marks,
            )
            figures.append(f"<figure><h3>{html.escape(title)}</h3>{legend}{drawing}</figure>")
    return figures


def _legend(entries: Iterable[tuple[str, int | None, int]]) -> str:
    """Args:
    entries: (name, colour, dash); without a colour the line is drawn in that of text.
    """
    lines = []
    for name, colour, dash in entries:
        style, stroke = ("", "currentColor") if colour is None else (f"c{colour % NUM_COLOURS}", "var(--c)")
        line = f'<line class="d{dash}" x1="0" x2="26" y1="5" y2="5" stroke="{stroke}" stroke-width="2.5"/>'
        drawn = f'<svg viewBox="0 0 26 10" aria-hidden="true">{line}</svg>'
        lines.append(f'<li class="{style}">{drawn}{html.escape(name)}</li>')
    return f'<ul class="legend">{"".join(lines)}</ul>'


def _table(logs: Sequence[Log], values: Sequence[dict], keys: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(log.name)}</th>" for log in logs)
    head = f"<tr><th></th>{head}</tr>" if len(logs) > 1 else ""
    rows = []
    for key in keys:
        cells = "".join(f"<td>{html.escape(_text(of_log.get(key)))}</td>" for of_log in values)
        rows.append(f"<tr><th>{html.escape(key)}</th>{cells}</tr>")
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _keys(values: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(key for of_log in values for key in of_log))


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    return number_text(value) if isinstance(value, float) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _names(paths: Sequence[str]) -> list[str]:
    """The files' names, or whole paths where two have the same."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


if __name__ == "__main__":
    sys.exit(main())
