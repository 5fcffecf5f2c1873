"""`schema.yaml` -> TableSchema, strictly: an unknown key or a wrong type is an error that names its place.

label: {column: clicked, positive: "yes"}
numerical:
  price: {transform: log1p, missing: 0, clip: [0, 1000]}
categorical:
  hour: {}
  site: {threshold: 3}
split: {test_fraction: 0.2}
read: {format: csv, delimiter: ";"}
"""

from datetime import date
from pathlib import Path

from criteo_prep import plain_yaml
from criteo_prep.feature_spec import minimal_dtype
from criteo_prep.messages import shown
from criteo_prep.plain_file import open_plain
from criteo_prep.table.document_values import DocumentValues, SchemaError
from criteo_prep.table.schema import (
    FORMATS,
    LONGEST_LIST,
    TRANSFORMS,
    TYPES,
    Categorical,
    Label,
    Numerical,
    ReadOptions,
    SplitRule,
    TableSchema,
    feature_names,
)

LARGEST_BYTES = 4 << 20
_SECTIONS = ("label", "numerical", "categorical", "split", "read")
_SPLIT_KINDS = {
    "test_fraction": ("test_fraction",),
    "column": ("column", "test", "validation"),
    "time": ("time", "test_after", "validation_after"),
    "test_file": ("test_file", "validation_file"),
}


def load_schema(path: str | Path) -> TableSchema:
    """Reads a schema.

    Raises:
      SchemaError: the file does not exist, is not YAML, or a value in it is wrong; the message names the place.
      OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with open_plain(path) as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise SchemaError(
            f"{path}: there is no such file. Name a schema; criteo-prep schema FILES writes a first one."
        ) from None
    except IsADirectoryError:
        raise SchemaError(f"{path}: is a folder. Name the file of a schema.") from None
    if len(content) > LARGEST_BYTES:
        raise SchemaError(f"{path}: has more than {LARGEST_BYTES >> 20} MiB, so it is not a schema.")
    try:
        document = plain_yaml.load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path}: is not text in UTF-8: {error}.") from None
    except plain_yaml.PlainYamlError as error:
        raise SchemaError(f"{path}: {error}") from None
    return parse_schema(document, str(path))


def parse_schema(document: object, where: str) -> TableSchema:
    """The schema of a document of plain values. Raises SchemaError, whose message begins with `where`."""
    return _Parser(where).schema(document)


class _Parser(DocumentValues):
    """Turns a document into a schema."""

    def schema(self, document: object) -> TableSchema:
        self.mapping(document, "the file", _SECTIONS)
        for section in ("label", "split"):
            if section not in document:
                example = "{column: clicked, positive: 1}" if section == "label" else "{test_fraction: 0.1}"
                raise self.error(f"has no {section}. Add one, such as {section}: {example}.")
        columns = {}
        for section in ("numerical", "categorical"):
            columns[section] = {} if document.get(section) is None else document[section]
            self.mapping(columns[section], section)
            for name in columns[section]:
                if not isinstance(name, str) or not name:
                    raise self.error(f"{section}: {shown(name)} is not a name. Write the name of a column in quotes.")
        label, split = self.label(document["label"]), self.split(document["split"])
        read = self.read(document.get("read"))
        numerical, categorical = columns["numerical"], columns["categorical"]
        if not categorical and not numerical:
            raise self.error("names no numerical and no categorical column, so there is nothing to learn from.")
        for name in (*numerical, *categorical):
            if name == label.column:
                raise self.error(f"{shown(name)} is the label, and cannot be a feature too. Leave it out of one.")
            if name in numerical and name in categorical:
                raise self.error(f"{shown(name)} is both numerical and categorical. Leave it out of one of them.")
        plain = dict(zip((*categorical, *numerical), feature_names((*categorical, *numerical)), strict=True))
        schema = TableSchema(
            label,
            tuple(self.numerical(name, plain[name], entry=entry) for name, entry in numerical.items()),
            tuple(self.categorical(name, plain[name], entry=entry) for name, entry in categorical.items()),
            split=split,
            read=read,
        )
        self.check_shared(schema)
        return schema

    def label(self, entry: object) -> Label:
        self.mapping(entry, "label", ("column", "positive"))
        return Label(self.name(entry, "label", "column"), self.value(entry.get("positive", 1), "label: positive"))

    def numerical(self, column: str, feature: str, *, entry: object) -> Numerical:
        where, entry = f"numerical: {shown(column)}", {} if entry is None else entry
        self.mapping(entry, where, ("transform", "missing", "clip"))
        transform = entry.get("transform", "log_shift")
        if transform not in TRANSFORMS:
            raise self.error(f"{where}: transform is {shown(transform)}; the transforms are {', '.join(TRANSFORMS)}.")
        missing, clip = entry.get("missing"), entry.get("clip")
        if missing is not None:
            missing = self.number(missing, f"{where}: missing")
        if clip is not None:
            if not isinstance(clip, list) or len(clip) != 2:
                raise self.error(f"{where}: clip is {shown(clip)}; it must be [lowest, highest].")
            lowest, highest = (self.number(limit, f"{where}: clip") for limit in clip)
            if lowest > highest:
                raise self.error(f"{where}: clip is {shown(clip)}; the lowest value stands first.")
            clip = (lowest, highest)
        return Numerical(column, feature, transform, missing=missing, clip=clip)

    def categorical(self, column: str, feature: str, *, entry: object) -> Categorical:
        where, entry = f"categorical: {shown(column)}", {} if entry is None else entry
        keys = ("threshold", "max_cardinality", "type", "vocabulary", "separator", "hotness", "max_length")
        self.mapping(entry, where, keys)
        kind, cap = entry.get("type"), self.count(entry, where, key="max_cardinality", least=2)
        if kind is not None and kind not in TYPES:
            raise self.error(f"{where}: type is {shown(kind)}; the types are {', '.join(TYPES)}.")
        if cap is not None:
            try:
                minimal_dtype(cap)
            except ValueError as error:
                raise self.error(f"{where}: max_cardinality: {error}") from None
        hotness = self.count(entry, where, key="hotness", least=1)
        if hotness is not None and "max_length" in entry:
            raise self.error(f"{where}: has hotness and max_length; hotness is the longest list too. Leave one out.")
        longest = self.count(entry, where, key="max_length", least=1) or LONGEST_LIST
        for key in ("vocabulary", "separator"):
            if entry.get(key) is not None:
                self.name(entry, where, key)
        return Categorical(
            column,
            feature,
            threshold=self.count(entry, where, key="threshold", least=0) or 0,
            cap=cap,
            type=kind,
            vocabulary=entry.get("vocabulary"),
            separator=entry.get("separator"),
            hotness=hotness,
            max_length=hotness or longest,
        )

    def split(self, entry: object) -> SplitRule:
        self.mapping(entry, "split", tuple(key for keys in _SPLIT_KINDS.values() for key in keys))
        kinds = [kind for kind in _SPLIT_KINDS if kind in entry]
        if len(kinds) != 1:
            raise self.error(f"split: has {kinds or 'none'} of {', '.join(_SPLIT_KINDS)}; it must have exactly one.")
        (kind,) = kinds
        self.mapping(entry, f"split by {kind}", _SPLIT_KINDS[kind])
        if kind == "test_fraction":
            fraction = self.number(entry[kind], "split: test_fraction")
            if not 0 < fraction < 1:
                raise self.error(f"split: test_fraction is {fraction}; it must be above 0 and below 1.")
            return SplitRule(test_fraction=fraction)
        if kind == "column":
            test, validation = (self.values(entry.get(key), f"split: {key}") for key in ("test", "validation"))
            if both := sorted(set(test) & set(validation)):
                raise self.error(f"split: {both[0]!r} is both a test and a validation value. Leave one out.")
            if not test:
                raise self.error("split: test names no value. Add one, such as test: [23].")
            return SplitRule(column=self.name(entry, "split", kind), test=test, validation=validation)
        if kind == "test_file":
            validation = self.name(entry, "split", "validation_file") if entry.get("validation_file") else None
            return SplitRule(test_file=self.name(entry, "split", kind), validation_file=validation)
        return self.split_by_time(entry)

    def split_by_time(self, entry: dict) -> SplitRule:
        limits = [self.time(entry.get(key)) for key in ("test_after", "validation_after")]
        for key, limit in zip(("test_after", "validation_after"), limits, strict=True):
            is_time = isinstance(limit, int | float | date) and not isinstance(limit, bool)
            is_time = is_time and not (isinstance(limit, int) and abs(limit) >= 2**63)
            if (limit is None and key == "test_after") or (limit is not None and not is_time):
                raise self.error(f"split: {key} is {shown(limit)}; it must be a time or a number.")
        if limits[1] is not None and (type(limits[0]) is not type(limits[1]) or limits[0] >= limits[1]):
            raise self.error("split: validation_after must be later than test_after, and written in the same way.")
        return SplitRule(time=self.name(entry, "split", "time"), test_after=limits[0], validation_after=limits[1])

    def read(self, entry: object) -> ReadOptions:
        entry = {} if entry is None else entry
        self.mapping(entry, "read", ("format", "delimiter", "quote", "columns"))
        if entry.get("format") not in (None, *FORMATS):
            raise self.error(f"read: format is {shown(entry['format'])}; the formats are {', '.join(FORMATS)}.")
        for key in ("delimiter", "quote"):
            value = entry.get(key)
            if value is not None and (
                not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\r\n"
            ):
                raise self.error(f"read: {key} is {shown(value)}; it must be one ASCII character.")
        columns = entry.get("columns")
        if columns is not None:
            columns = self.values(columns, "read: columns")
            if len(set(columns)) != len(columns) or not columns:
                raise self.error("read: columns must name each column of the file once.")
        if entry.get("delimiter") is not None and entry.get("delimiter") == entry.get("quote", '"'):
            raise self.error("read: delimiter and quote are the same character.")
        quote = entry.get("quote", '"')
        return ReadOptions(entry.get("format"), entry.get("delimiter"), quote=quote, columns=columns)

    def check_shared(self, schema: TableSchema) -> None:
        """Features of one vocabulary must agree about it."""
        for group in schema.groups:
            first = schema.categorical[group[0]]
            for each in (schema.categorical[number] for number in group[1:]):
                for key in ("threshold", "cap", "type"):
                    if getattr(first, key) != getattr(each, key):
                        key_in_file = "max_cardinality" if key == "cap" else key
                        raise self.error(
                            f"categorical: {shown(each.column)} shares the vocabulary {shown(first.vocabulary)} with "
                            f"{shown(first.column)}, but their {key_in_file} differs. Give both the same."
                        )
