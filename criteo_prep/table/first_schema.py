"""`criteo-prep schema FILES`: a first schema of a log, with a reason for every line. Its user corrects it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from criteo_prep import plain_yaml
from criteo_prep.destination import new_file
from criteo_prep.guard import DestinationError
from criteo_prep.messages import one_line
from criteo_prep.preprocess.locations import Location, local_paths
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.table.files import list_files
from criteo_prep.table.profile import ColumnProfile, profile_of, sample_of
from criteo_prep.table.schema import Label, ReadOptions, SplitRule, TableSchema
from criteo_prep.table.schema_document import parse_schema

_LABELS = ("label", "click", "clicked", "is_click", "is_clicked", "target", "y", "conversion", "converted", "response")
_POSITIVE = ("1", "true", "yes", "y", "t", "click", "clicked", "positive", "True", "Yes")
_WORDS_OF_YAML = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_MOST_CATEGORIES = 1000  # different integers in the sample up to which a column is categorical
_ID_NAME = re.compile(r"(?i)(^|[_ ])(id|ids|uid|category|code|type|zip|version)$|id$|^c\d+$|^cat_?\d+$")
_TIME_NAME = re.compile(r"(?i)(time|timestamp|date|hour|day|^ts$|_ts$|_at$)")


def write_first_schema(
    paths: Sequence[str | Location], output: str | Path | None, *, delimiter: str | None = None
) -> tuple[str, Path | None]:
    """Looks at the beginning of a log, and writes a schema.

    Args:
      paths: files, folders and patterns.
      output: the file to write, which must not exist; None to write none.
      delimiter: of CSV; None to find it.

    Returns:
      The text of the schema, and the file.

    Raises:
      InputError: a file cannot be read, or no column can be the label.
      DestinationError: the file exists.
    """
    files, _ = list_files(paths)
    if output is not None and Path(output).exists():
        raise DestinationError(f"{output}: exists already, and may have corrections. Name another file, or delete it.")
    text = first_schema(files, delimiter)
    if output is None:
        return text, None
    with new_file(output, is_ours=lambda path: False, reads=local_paths(files)) as file:
        file.write(text.encode())
    return text, Path(output)


def first_schema(files: Sequence[Location], delimiter: str | None = None) -> str:
    """The text of a schema for these files. Raises InputError."""
    read = ReadOptions(delimiter=delimiter)
    frame = sample_of(files, TableSchema(Label("label"), (), (), split=SplitRule(test_fraction=0.1), read=read))
    profiles = [profile_of(frame[name]) for name in frame.columns]
    label = _label_of(profiles)
    if label is None:
        raise InputError(
            f"{files[0]}: no column has exactly two values in the first {frame.height:,} rows, so no column can be the "
            "label. Write the schema yourself."
        )
    numerical, categorical, left_out = [], [], []
    for each in profiles:
        if each is not label:
            section, line = _line_of(each)
            {"numerical": numerical, "categorical": categorical, "": left_out}[section].append(line)
    lines = [
        f"# A first schema, from {frame.height:,} rows at the beginning of {len(files)} file(s). Read every line.",
        *_label_lines(label),
        *([] if not numerical else ["numerical:", *numerical]),
        *([] if not categorical else ["categorical:", *categorical]),
        *(["# Left out:", *left_out] if left_out else []),
        *_split_lines(files, profiles),
        *([f"read: {{delimiter: {json.dumps(delimiter)}}}"] if delimiter else []),
    ]
    text = "\n".join(lines) + "\n"
    parse_schema(plain_yaml.load(text), "the first schema")
    return text


def _label_of(profiles: list[ColumnProfile]) -> ColumnProfile | None:
    candidates = [each for each in profiles if each.num_distinct == 2 and not each.num_missing and each.kind != "list"]
    named = [each for name in _LABELS for each in candidates if each.name.lower() == name]
    return next(iter([*named, *candidates]), None)


def _label_lines(label: ColumnProfile) -> list[str]:
    rare = label.values[-1]
    positive = next((value for value in label.values if value in _POSITIVE), rare)
    why = (
        "is named like a label and has two values" if label.name.lower() in _LABELS else "is the first with two values"
    )
    return [f"label: {{column: {_name(label.name)}, positive: {_value(positive)}}}  # {why}: {_shown(label.values)}"]


def _line_of(each: ColumnProfile) -> tuple[str, str]:
    """(section, line of the schema) of a column; the section is "" for a column that is left out."""
    name, distinct = _name(each.name), f"{each.num_distinct:,} different values"
    missing = f", {each.num_missing / each.num_rows:.1%} missing" if each.num_missing else ""
    if each.kind == "record":
        return "", f"#   {name}: a record or of another type that cannot be a feature"
    if each.num_distinct <= 1:
        return "", f"#   {name}: the same value in every row{missing}"
    if each.kind == "time":
        return "", f"#   {name}: a time, such as {_shown(each.values[:1])}"
    if each.num_rows >= 100 and each.num_distinct == each.num_rows and each.kind != "decimal":
        return "", f"#   {name}: a different value in every row, such as {_shown(each.values[:1])}"
    if each.kind == "decimal":
        return "numerical", _numerical_line(each, f"decimals from {each.lowest:.6g} to {each.highest:.6g}{missing}")
    if each.kind == "integer":
        is_id = _ID_NAME.search(each.name) is not None
        most = min(_MOST_CATEGORIES, max(100, each.num_rows // 10))
        if not is_id and each.num_distinct > most and not _TIME_NAME.search(each.name):
            why = f"{distinct}, from {each.lowest:.0f} to {each.highest:.0f}{missing}"
            return "numerical", _numerical_line(each, why)
        why = "is named like an id, " if is_id else ""
        return "categorical", f"  {name}: {{{_threshold(each)}}}  # {why}{distinct}{missing}: {_shown(each.values)}"
    options = [_threshold(each)] if _threshold(each) else []
    if each.separator:
        options.append(f"separator: {json.dumps(each.separator)}")
    if each.longest > 1:
        options.append(f"max_length: {max(10, 4 * each.longest)}")
        distinct = f"lists of up to {each.longest} values, {distinct}"
    end = f"  # {each.kind}, {distinct}{missing}: {_shown(each.values)}"
    return "categorical", f"  {name}: {{{', '.join(options)}}}{end}"


def _numerical_line(each: ColumnProfile, why: str) -> str:
    if each.lowest >= 0 and each.highest > 20 * max(each.median, 1):
        transform, reason = "log1p", "very uneven"
    elif each.lowest >= -3 and each.highest > 20 * max(each.median, 1):
        transform, reason = "log_shift", "very uneven, and a little below 0"
    else:
        transform, reason = "standardize", "rather even"
    return f"  {_name(each.name)}: {{transform: {transform}}}  # {why}; {reason}"


def _threshold(each: ColumnProfile) -> str:
    """Values that occur once teach nothing: a threshold where they are a tenth of the rows or more."""
    return "threshold: 3" if each.num_single > each.num_rows / 10 else ""


def _split_lines(files: Sequence[Location], profiles: list[ColumnProfile]) -> list[str]:
    is_time = lambda each: each.kind == "time" or (each.kind == "integer" and _TIME_NAME.search(each.name))  # noqa: E731
    times = [each.name for each in profiles if is_time(each)]
    hint = f"; {_name(times[0])} may say it better: {{time: {_name(times[0])}, test_after: ...}}" if times else ""
    if len(files) > 1:
        return [f"split: {{test_file: {_name(files[-1].name)}}}  # the last file is for the test{hint}"]
    return [f"split: {{test_fraction: 0.1}}  # the last tenth of the rows is for the test{hint}"]


def _name(name: str) -> str:
    is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _WORDS_OF_YAML
    return name if is_plain else json.dumps(name, ensure_ascii=True)


def _value(value: str) -> str:
    return value if re.fullmatch(r"\d{1,18}", value) else json.dumps(value)


def _shown(values: Sequence[str]) -> str:
    return ", ".join(one_line(value, 40) for value in values)
