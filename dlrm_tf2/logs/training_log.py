"""Reads the log of a training. A value of another type or form is left out or refused. No TensorFlow."""

import json
from dataclasses import dataclass
from pathlib import Path

_MOST_STEPS = 10**15  # a larger step is not a step
_LARGEST, _SMALLEST = 1e100, 1e-100  # charts show no number beyond the first; a number below the second is 0


class LogError(ValueError):
    """A file is not the log of a training."""


@dataclass(frozen=True)
class TrainingLog:
    """The log of one run of training.

    Attributes:
      name: name of the log for people.
      config: the first line of the run.
      records: the lines that have a step, of training and of evaluations.
      summary: the last line of a finished run; None for a run that has not finished.
      resumed: the steps after which the run was resumed.
      notes: lines for the user, such as that the run was interrupted.
    """

    name: str
    config: dict
    records: list[dict]
    summary: dict | None
    resumed: list[int]
    notes: list[str]

    def points(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of a key, by step. Of a list, the largest value. A later line replaces an earlier one."""
        points = {}
        for record in self.records:
            value = record.get(key)
            if isinstance(value, list):
                value = max((one for one in value if _is_number(one)), default=None)
            if _is_number(value):
                points[record["step"]] = value if abs(value) >= _SMALLEST else 0.0
        return sorted(points.items())


def read_log(path: str, name: str) -> TrainingLog:
    """Reads the last training in a log.

    Raises:
      LogError: the file is not a log, or holds no step of a training.
      OSError: the file cannot be read.
    """
    records, notes = _read_records(path)
    if not {"mode", "batch_size", "learning_rate"} <= set(records[0]):
        raise LogError(f"{path}: does not begin with the configuration of a run, so it is not a log of one.")
    runs = _runs(records)
    trainings = [number for number, run in enumerate(runs) if run[0]["mode"] == "train"]
    if not trainings:
        raise LogError(f"{path}: has no training: it is of --mode {str(runs[-1][0]['mode'])[:40]}; nothing to draw.")
    last = runs[trainings[-1]]
    lines = [
        line
        for number in trainings
        for line in runs[number][1:]
        if runs[number] is last or runs[number][0].get("run", number) == last[0].get("run")
    ]
    if others := len({str(runs[number][0].get("run", number)) for number in trainings}) - 1:
        notes.append(f"holds {others + 1} trainings; the last one is drawn")
    stepped = [line for line in lines if _is_step(line.get("step"))]
    if not stepped:
        raise LogError(f"{path}: has not one step yet, so there is nothing to draw.")
    summary = lines[-1] if "throughput" in lines[-1] else None
    if summary is None:
        notes.append(f"not finished: the last line is of step {stepped[-1]['step']:,}")
    resumed = [line["resumed_step"] for line in lines if _is_step(line.get("resumed_step"))]
    notes += [f"interrupted, and resumed after step {step:,}" for step in resumed]
    return TrainingLog(name, last[0], records=stepped, summary=summary, resumed=resumed, notes=notes)


def _read_records(path: str) -> tuple[list[dict], list[str]]:
    """The JSON objects of a file, at least one, and lines for the user."""
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
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append({key: _flat(value) for key, value in record.items()})
        elif number == len(lines) and records:  # the file does not end with a line break
            notes.append("the last line is cut off and left out")
        else:
            raise LogError(f"{path}, line {number}: is not a JSON object. A log has one a line.")
    if not records:
        raise LogError(f"{path}: is empty. A log begins with the configuration of its run.")
    return records, notes


def _runs(records: list[dict]) -> list[list[dict]]:
    """The records of each run: its configuration first."""
    runs = []
    for record in records:
        if "mode" in record:
            runs.append([])
        runs[-1].append(record)
    return runs


def _flat(value: object) -> object:
    """The value, or "..." in place of an object or a list of lists, which no log has."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value)):
        return "..."
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_step(value: object) -> bool:
    return _is_number(value) and 0 <= value <= _MOST_STEPS
