"""The parts of a feature spec, and the YAML document that holds them: its types and keys. No rule beyond these.

criteo_prep.feature_spec alone uses this module, and exports its types. criteo_prep.feature_spec_rules has the rules.
"""

from dataclasses import dataclass
from pathlib import Path

from criteo_prep import plain_yaml
from criteo_prep.messages import one_line, shown
from criteo_prep.plain_file import open_plain

AUTO = "auto"
CHANNELS = ("categorical", "numerical", "label")
LARGEST_BYTES = 4 << 20  # a spec of 1,000 features has about half a MiB
_LARGEST_NUMBER = 2**63 - 1
_YES_OR_NO = ("ragged", "key")  # of a feature
_SECTIONS = ("feature_spec", "channel_spec", "source_spec", "metadata")


class FeatureSpecError(ValueError):
    """A feature spec is wrong, or a dataset does not fit its feature spec. The message is one line."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
      name: name, unique in the dataset. In published datasets it may end in the suffix of a file.
      dtype: name of the numpy dtype on disk.
      cardinality: number of ids of a categorical feature, id 0 included; None for other features. AUTO if a
        transcription is to find the number.
      hotness: ids per sample.
      alpha: exponent of the power law of a synthetic feature; None if the feature is not synthetic.
      ragged: whether samples have different numbers of ids, 0 included; hotness is then a nominal number.
      key: whether the feature holds keys, any int64, in place of ids; it has no cardinality then.
    """

    name: str
    dtype: str
    cardinality: int | str | None = None
    hotness: int = 1
    alpha: float | None = None
    ragged: bool = False
    key: bool = False

    @property
    def id_dtype(self) -> str:
        """Name of the dtype that the ids of a categorical feature have in memory."""
        return "int64" if self.key else "int32"


@dataclass(frozen=True)
class Chunk:
    """Features stored together.

    Attributes:
      features: names of the features, in their order in the file.
      files: paths relative to the dataset folder. A chunk of type `split_binary` has one file, and for a ragged feature
        a second file with the row offsets. For other types see the layout's module in criteo_prep.transcribe.
      type: name of the layout; `split_binary` is the layout tf_raw.
    """

    features: tuple[str, ...]
    files: tuple[str, ...]
    type: str = "split_binary"


def parse(path: Path) -> dict:
    """Reads a file into the parts of a FeatureSpec, by attribute name.

    Raises:
      FeatureSpecError: the file does not exist, is too large, is not YAML, or has an unknown key or a wrong type.
    """
    try:
        document = plain_yaml.load(_text_of(path))
    except plain_yaml.PlainYamlError as error:
        raise FeatureSpecError(f"{path}: {error}") from None
    return _Parser(path).parts(document)


def document_of(features: dict, channels: dict, *, sources: dict, metadata: dict) -> dict:
    """The YAML document of a spec's parts. Published readers do not see the chunks of the validation split in it."""

    def features_of(feature: Feature) -> dict:
        entry: dict = {"dtype": str(feature.dtype)}
        if feature.cardinality is not None:
            entry["cardinality"] = AUTO if feature.cardinality == AUTO else int(feature.cardinality)
        if feature.hotness != 1 or feature.alpha is not None:
            entry["hotness"] = int(feature.hotness)
        if feature.alpha is not None:
            entry["alpha"] = float(feature.alpha)
        if feature.ragged:
            entry["ragged"] = True
        if feature.key:
            entry["key"] = True
        return entry

    def chunks_of(split: str) -> list[dict]:
        return [
            {"type": chunk.type, "features": list(chunk.features), "files": list(chunk.files)}
            for chunk in sources[split]
        ]

    metadata = dict(metadata)
    if "validation" in sources:
        metadata["source_spec"] = {"validation": chunks_of("validation")}
    return {
        "feature_spec": {name: features_of(feature) for name, feature in features.items()},
        "channel_spec": {channel: list(names) for channel, names in channels.items()},
        "source_spec": {split: chunks_of(split) for split in ("train", "test") if split in sources} or None,
        "metadata": metadata,
    }


def _text_of(path: Path) -> str:
    try:
        with open_plain(path) as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise FeatureSpecError(f"{path}: there is no such file. Name a folder that holds a feature spec.") from None
    if len(content) > LARGEST_BYTES:
        raise FeatureSpecError(
            f"{path}: has more than {LARGEST_BYTES >> 20} MiB, so it is not a feature spec. Name a feature spec."
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FeatureSpecError(f"{path}: is not text in UTF-8: {error}.") from None


class _Parser:
    """Turns a YAML document into the parts of a spec. Raises FeatureSpecError for an unknown key or a wrong type."""

    def __init__(self, path: Path):
        self.path = path

    def parts(self, document: object) -> dict:
        self.mapping(document, "the file", _SECTIONS)
        for section in ("feature_spec", "channel_spec"):
            if section not in document:
                raise self.error(f"has no {section}.")
        features, channels = document["feature_spec"], document["channel_spec"]
        self.mapping(features, "feature_spec")
        self.mapping(channels, "channel_spec", CHANNELS)
        metadata = document.get("metadata")
        metadata = {} if metadata is None else metadata
        self.mapping(metadata, "metadata")
        sources = self.sources(document.get("source_spec"), ("train", "test"), "source_spec")
        metadata = dict(metadata)
        extra = metadata.pop("source_spec", None)
        sources |= self.sources(extra, ("validation",), "metadata: source_spec")
        return {
            "features": {name: self.feature(name, entry) for name, entry in features.items()},
            "channels": {name: self.names(names, f"channel_spec: {name}") for name, names in channels.items()},
            "sources": sources,
            "metadata": metadata,
        }

    def feature(self, name: object, entry: object) -> Feature:
        where = f"feature_spec: {name}"
        if not isinstance(name, str):
            raise self.error(f"{where}: a feature name must be a string.")
        self.mapping(entry, where, ("dtype", "cardinality", "hotness", "alpha", *_YES_OR_NO))
        if entry.get("dtype") is None:
            raise self.error(f"{where}: has no dtype. Write one such as int32 or float16.")
        for key, kinds, expected in (
            ("dtype", str, "text"),
            ("cardinality", int, "a whole number"),
            ("hotness", int, "a whole number"),
            ("alpha", (int, float), "a number"),
        ):
            value = entry.get(key)
            if key == "cardinality" and value == AUTO:
                continue
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise self.error(f"{where}: {key} is {shown(value)}; it must be {expected}.")
            if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
                raise self.error(f"{where}: {key} is {shown(value)}; the largest is {_LARGEST_NUMBER}.")
        for key in _YES_OR_NO:
            if not isinstance(entry.get(key, False), bool):
                raise self.error(f"{where}: {key} is {shown(entry[key])}; it must be true or false.")
        hotness = 1 if entry.get("hotness") is None else entry["hotness"]
        return Feature(
            name,
            entry["dtype"],
            cardinality=entry.get("cardinality"),
            hotness=hotness,
            alpha=entry.get("alpha"),
            ragged=entry.get("ragged", False),
            key=entry.get("key", False),
        )

    def sources(self, document: object, splits: tuple[str, ...], where: str) -> dict[str, tuple[Chunk, ...]]:
        if document is None:
            return {}
        self.mapping(document, where, splits)
        sources = {}
        for split, chunks in document.items():
            if not isinstance(chunks, list) or not chunks:
                raise self.error(f"{where}: {split}: must be a list of chunks.")
            sources[split] = tuple(self.chunk(chunk, f"{where}: {split}: chunk {i}") for i, chunk in enumerate(chunks))
        return sources

    def chunk(self, entry: object, where: str) -> Chunk:
        self.mapping(entry, where, ("type", "features", "files"))
        for key in ("type", "features", "files"):
            if key not in entry:
                raise self.error(f"{where}: has no {key}.")
        if not isinstance(entry["type"], str):
            raise self.error(f"{where}: type is {shown(entry['type'])}; it must be text.")
        return Chunk(self.names(entry["features"], where), self.names(entry["files"], where), entry["type"])

    def names(self, value: object, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.error(f"{where}: {shown(value)} is not a list of names.")
        return tuple(value)

    def mapping(self, value: object, where: str, keys: tuple[str, ...] | None = None) -> None:
        if not isinstance(value, dict):
            raise self.error(f"{where} must be a mapping, not {type(value).__name__}.")
        for key in value:
            if keys is not None and key not in keys:
                raise self.error(f"{where}: unknown key {shown(key)}; the keys are {list(keys)}.")

    def error(self, message: str) -> FeatureSpecError:
        return FeatureSpecError(f"{self.path}: {message}")
