"""The logs of trainings as one HTML page, which needs no other file and no network. No TensorFlow."""

from collections.abc import Sequence

from criteo_prep.pages.charts import Axes, Curve, line_chart
from criteo_prep.pages.numbers import number_text
from criteo_prep.pages.page import Page, table
from dlrm_tf2.logs.training_log import TrainingLog

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


def page(logs: Sequence[TrainingLog]) -> str:
    """The page, as HTML text. Raises NoChartLibraryError where the packages for charts are not installed."""
    made = Page("Training of " + (logs[0].name if len(logs) == 1 else f"{len(logs)} runs"))
    for log in logs:
        prefix = f"{log.name}: " if len(logs) > 1 else ""
        for note in log.notes:
            made.note(prefix + note)
    made.figures(_figures(logs))
    head = ["", *(log.name for log in logs)] if len(logs) > 1 else []
    summaries = [log.summary or {} for log in logs]
    if any(summaries):
        made.heading("Summary")
        made.table(head, _rows(summaries, _keys(summaries)))
    configs = [log.config for log in logs]
    differing = [key for key in _keys(configs) if len({_text(config.get(key)) for config in configs}) > 1]
    if differing:
        made.heading("Where the configurations differ")
        made.table(head, _rows(configs, differing))
    made.details("Configuration", table(head, _rows(configs, sorted(_keys(configs)))))
    return made.text()


def _figures(logs: Sequence[TrainingLog]) -> list[tuple[str, dict, str]]:
    figures = []
    marks = sorted({step for log in logs for step in log.resumed})
    steps = [record["step"] for log in logs for record in log.records]
    for title, unit, from_zero, keys in _CHARTS:
        curves = []
        for key, name in keys.items():
            for log in logs:
                # Each log has a colour, and each key a dash. With one log, each key has a colour too.
                if points := log.points(key):
                    full_name = f"{log.name}, {name}" if len(logs) > 1 else name
                    curves.append(Curve(full_name, points, log.name if len(logs) > 1 else name, dash=name))
        if curves:
            # The first steps of a run include their compilation.
            x_range = (min(steps), max(steps))
            axes = Axes("step", unit, from_zero=from_zero, cut_peaks=title == _TIMES, x_range=x_range)
            figures.append((title, line_chart(axes, curves, marks=marks), ""))
    return figures


def _rows(values: Sequence[dict], keys: Sequence[str]) -> list[list[str]]:
    """A row for each key: its name, and its value in each log."""
    return [[key, *(_text(values_of_log.get(key)) for values_of_log in values)] for key in keys]


def _keys(values: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(key for values_of_log in values for key in values_of_log))


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    text = number_text(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
