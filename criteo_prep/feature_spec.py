"""`feature_spec.yaml`: what a dataset holds, and in which files. Others read and write it through this module alone.

The file has four sections: `feature_spec` (name -> dtype, cardinality and so on), `channel_spec` (categorical,
numerical, label -> ordered names), `source_spec` (train, test -> chunks of features and files), free-form `metadata`.

Source: the layout of NVIDIA's DLRM for TensorFlow 2. NVIDIA's readers accept the mappings `train` and `test` only. So
the chunks of the validation split stand under `metadata: {source_spec: {validation: [...]}}`.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from criteo_prep.feature_spec_document import AUTO, Chunk, Feature, FeatureSpecError, document_of, parse
from criteo_prep.feature_spec_files import num_samples_in
from criteo_prep.feature_spec_rules import ID_DTYPES, KEY_DTYPE, check_structure
from criteo_prep.schema import LABEL, NUM_NUMERICAL, SPLITS

__all__ = ["AUTO", "Chunk", "Feature", "FeatureSpec", "FeatureSpecError", "minimal_dtype", "tf_raw_spec"]


@dataclass
class FeatureSpec:
    """The description of a dataset.

    Attributes:
      features: name -> Feature.
      channels: "categorical", "numerical", "label" -> names; the order of `categorical` is the order of the tables.
      sources: split -> chunks; a split without files is absent.
      metadata: free-form content, kept unchanged.
      root: the dataset folder, to which all paths are relative; None if the spec was not loaded from a file.
      path: the file that the spec was loaded from, for messages.
    """

    features: dict[str, Feature]
    channels: dict[str, tuple[str, ...]]
    sources: dict[str, tuple[Chunk, ...]] = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    root: Path | None = None
    path: Path | None = None

    @property
    def label(self) -> Feature:
        return self.features[self.channels["label"][0]]

    @property
    def numerical(self) -> list[Feature]:
        return [self.features[name] for name in self.channels["numerical"]]

    @property
    def categorical(self) -> list[Feature]:
        return [self.features[name] for name in self.channels["categorical"]]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.sources)

    def chunk_of(self, split: str, feature: str) -> Chunk:
        """The chunk of `split` that holds `feature`. Raises FeatureSpecError if no chunk does."""
        for chunk in self.sources.get(split, ()):
            if feature in chunk.features:
                return chunk
        raise self._error(f"split {split!r} has no chunk with feature {feature!r}; the splits are {list(self.splits)}.")

    def path_of(self, split: str, feature: str) -> Path:
        """The file that holds `feature` in `split`."""
        assert self.root is not None, "a spec without a root has no files"
        return self.root / self.chunk_of(split, feature).files[0]

    @classmethod
    def load(cls, path: str | Path, auto: bool = False) -> "FeatureSpec":
        """Reads a file and validates its structure.

        Args:
          path: the file.
          auto: whether a cardinality may be AUTO.

        Raises:
          FeatureSpecError: the file does not exist or is not a feature spec.
          OSError: the file cannot be read.
        """
        path = Path(path)
        spec = cls(**parse(path), root=path.parent, path=path)
        spec.validate(auto)
        return spec

    def save(self, path: str | Path) -> None:
        """Writes the file; it appears whole or not at all."""
        self.validate()
        path = Path(path)
        temporary = path.with_name(f".{path.name}.partial")
        document = document_of(self.features, self.channels, sources=self.sources, metadata=self.metadata)
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                yaml.safe_dump(document, file, sort_keys=False, default_flow_style=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def validate(self, auto: bool = False) -> None:
        """Checks the structure without opening a data file: published rules, dtypes, cardinalities, paths.

        Args:
          auto: whether a cardinality may be AUTO.

        Raises:
          FeatureSpecError: names the feature or chunk, what was found, and what is expected.
        """
        try:
            check_structure(self.features, self.channels, sources=self.sources, auto=auto)
        except FeatureSpecError as error:
            raise self._error(str(error)) from None

    def validate_files(self, split: str) -> int:
        """Checks that the files of `split` exist and hold equally many whole samples. Returns the number of samples."""
        assert self.root is not None, "a spec without a root has no files"
        if split not in self.sources:
            raise self._error(f"there is no split {split!r}; the splits are {list(self.splits)}.")
        counts: dict[str, int] = {}
        for chunk in self.sources[split]:
            if chunk.type != "split_binary":
                raise self._error(
                    f"source_spec: {chunk.files[0]} is of type {chunk.type!r}; only split_binary is read here. "
                    "Transcribe the dataset to tf_raw."
                )
            counts[chunk.files[0]] = num_samples_in(self.root, chunk, [self.features[name] for name in chunk.features])
        first_file, num_samples = next(iter(counts.items()))
        for file, count in counts.items():
            if count != num_samples:
                raise FeatureSpecError(
                    f"{self.root / file}: holds {count} samples, but {first_file} holds {num_samples}. "
                    "The files of a split must agree; one of them is truncated or its dtype is wrong."
                )
        return num_samples

    def sample_bytes(self, chunk: Chunk) -> int:
        """Bytes of one sample in the chunk's file; a ragged feature counts with its nominal hotness."""
        features = [self.features[name] for name in chunk.features]
        return sum(np.dtype(feature.dtype).itemsize * feature.hotness for feature in features)

    def _error(self, message: str) -> FeatureSpecError:
        return FeatureSpecError(f"{self.path}: {message}" if self.path else message)


def minimal_dtype(cardinality: int) -> str:
    """The published dtype rule: the smallest signed type whose maximum is strictly greater than the cardinality.

    Source: NVIDIA's get_categorical_feature_type. (127 gives int16 although ids up to 126 would fit int8.)
    """
    for dtype in ID_DTYPES:
        if cardinality < np.iinfo(dtype).max:
            return dtype
    raise FeatureSpecError(f"cardinality {cardinality} is too large; the largest is 2147483646, because ids are int32.")


def tf_raw_spec(
    categorical: Iterable[Feature],
    num_numerical: int = NUM_NUMERICAL,
    *,
    numerical_names: Sequence[str] | None = None,
    splits: Iterable[str] = ("train", "test"),
    metadata: dict | None = None,
) -> FeatureSpec:
    """The spec of a dataset in the standard tf_raw layout.

    Args:
      categorical: features in table order. Each keeps its name, cardinality, hotness and alpha. Its dtype becomes the
        smallest dtype that the published rule allows, and int64 for keys.
      num_numerical: number of float16 columns, named num_0, num_1, ...
      numerical_names: other names for the float16 columns; num_numerical is then not used.
      splits: splits that have files: <split>/{numerical,label,<categorical name>}.bin, and
        <split>/<categorical name>_offsets.bin for a ragged feature.
      metadata: free-form content of the spec.

    Raises:
      FeatureSpecError: two features have the same name, or a cardinality is too large.
    """
    tables = [dataclasses.replace(feature, dtype=_standard_dtype(feature)) for feature in categorical]
    columns = [f"num_{i}" for i in range(num_numerical)] if numerical_names is None else numerical_names
    features: dict[str, Feature] = {}
    for feature in [*tables, *(Feature(name, "float16") for name in columns), Feature(LABEL, "bool")]:
        if feature.name in features:
            raise FeatureSpecError(f"two features are named {feature.name!r} in the standard layout. Rename one.")
        features[feature.name] = feature
    names = tuple(columns)

    def chunks_of(split: str) -> tuple[Chunk, ...]:
        chunks = [Chunk(names, (f"{split}/numerical.bin",))] if names else []
        chunks.append(Chunk((LABEL,), (f"{split}/label.bin",)))
        # A published name that ends in .bin is its file's name.
        files = [f"{split}/{table.name.removesuffix('.bin')}.bin" for table in tables]
        offsets = [
            (f"{file.removesuffix('.bin')}_offsets.bin",) if table.ragged else ()
            for table, file in zip(tables, files, strict=True)
        ]
        named = zip(tables, files, offsets, strict=True)
        return (*chunks, *(Chunk((table.name,), (file, *second)) for table, file, second in named))

    return FeatureSpec(
        features=features,
        channels={"categorical": tuple(table.name for table in tables), "numerical": names, "label": (LABEL,)},
        sources={split: chunks_of(split) for split in splits},
        metadata=dict(metadata or {}),
    )


def _standard_dtype(feature: Feature) -> str:
    if feature.key:
        return KEY_DTYPE
    assert isinstance(feature.cardinality, int), f"{feature.name}: the cardinality must be known by now"
    try:
        return minimal_dtype(feature.cardinality)
    except FeatureSpecError as error:
        raise FeatureSpecError(f"{feature.name}: {error}") from None
