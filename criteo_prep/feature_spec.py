"""`feature_spec.yaml`: what a dataset holds and where. The one module that reads and writes it for others.

The file has four sections: `feature_spec` (name -> dtype, cardinality, hotness, alpha), `channel_spec` (categorical,
numerical, label -> ordered names), `source_spec` (train, test -> chunks of features and files), free-form `metadata`.

Source: the layout is that of NVIDIA's DLRM for TensorFlow 2, whose readers accept the mappings `train` and `test` only;
the validation split's chunks therefore stand under `metadata: {source_spec: {validation: [...]}}`, which this module
alone knows.
"""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from criteo_prep.feature_spec_document import AUTO, CHANNELS, Chunk, Feature, FeatureSpecError, document_of, parse
from criteo_prep.feature_spec_files import num_samples_in
from criteo_prep.schema import LABEL, NUM_NUMERICAL, SPLITS

_ID_DTYPES = ("int8", "int16", "int32")
_WIDE_ID_DTYPES = ("uint32", "int64")  # in files of other layouts; the ids are nevertheless below 2**31


@dataclass
class FeatureSpec:
    """A dataset's description.

    Attributes:
      features: name -> Feature.
      channels: "categorical", "numerical", "label" -> names; the order of `categorical` is the order of the tables.
      sources: split -> chunks; a split without files is absent.
      metadata: free-form, kept as it is.
      root: the dataset folder, which the paths are relative to; None for a spec that was not loaded from a file.
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
        """The chunk of `split` that holds `feature`. Raises FeatureSpecError where there is none."""
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
        """Reads a file and validates its structure; `auto` allows cardinalities that are still to be found.

        Raises:
          FeatureSpecError: what stands there is not a feature spec.
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
        """Checks the structure, files apart: the published rules, dtype against cardinality, paths within the folder.

        Args:
          auto: cardinalities may be AUTO.

        Raises:
          FeatureSpecError: naming the feature or chunk, what was found, and what is expected.
        """
        self._validate_features()
        self._validate_channels()
        self._validate_ids(auto)
        for split, chunks in self.sources.items():
            if split not in SPLITS:
                raise self._error(f"source_spec: {split!r} is not one of {list(SPLITS)}.")
            self._validate_chunks(split, chunks)

    def validate_files(self, split: str) -> int:
        """Checks that the files of `split` exist and hold the same whole number of samples. Returns that number."""
        assert self.root is not None, "a spec without a root has no files"
        if split not in self.sources:
            raise self._error(f"there is no split {split!r}; the splits are {list(self.splits)}.")
        counts: dict[str, int] = {}
        for chunk in self.sources[split]:
            if chunk.type != "split_binary":
                raise self._error(
                    f"source_spec: {chunk.files[0]} is of type {chunk.type!r}, which is not read here; "
                    "split_binary is. Transcribe the dataset to tf_raw."
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
        """Bytes of one sample in the chunk's file; of a ragged feature the nominal ones."""
        features = [self.features[name] for name in chunk.features]
        return sum(np.dtype(feature.dtype).itemsize * feature.hotness for feature in features)

    def _validate_features(self) -> None:
        for feature in self.features.values():
            where = f"feature_spec: {feature.name}"
            try:
                np.dtype(feature.dtype)
            except (TypeError, ValueError, SyntaxError):
                raise self._error(
                    f"{where}: dtype {feature.dtype!r} is not a numpy dtype. Write one such as int32 or float16."
                ) from None
            if feature.hotness < 1:
                raise self._error(f"{where}: hotness {feature.hotness} is not positive.")
            one = feature.hotness == 1 and not feature.ragged
            if not one and feature.name not in self.channels.get("categorical", ()):
                raise self._error(f"{where}: has hotness {feature.hotness}, which only a categorical feature has.")

    def _validate_channels(self) -> None:
        if sorted(self.channels) != sorted(CHANNELS):
            raise self._error(f"channel_spec: has {sorted(self.channels)}, must have exactly {sorted(CHANNELS)}.")
        named = [name for names in self.channels.values() for name in names]
        for name in named:
            if name not in self.features:
                raise self._error(f"channel_spec: {name!r} is not in feature_spec.")
            if named.count(name) > 1:
                raise self._error(f"channel_spec: {name!r} stands there {named.count(name)} times; once is right.")
        if missing := [name for name in self.features if name not in named]:
            raise self._error(f"channel_spec: lacks {missing[0]!r} of feature_spec. Each feature needs a channel.")
        if len(self.channels["label"]) != 1:
            raise self._error(f"channel_spec: label has {len(self.channels['label'])} features; exactly one is right.")

    def _validate_ids(self, auto: bool) -> None:
        for feature in self.categorical:
            where = f"feature_spec: {feature.name}"
            if feature.cardinality is None:
                raise self._error(f"{where}: a categorical feature needs a cardinality, the number of its ids.")
            if np.dtype(feature.dtype).name not in _ID_DTYPES + _WIDE_ID_DTYPES:
                raise self._error(f"{where}: dtype {feature.dtype} cannot hold ids; use one of {list(_ID_DTYPES)}.")
            if feature.cardinality == AUTO:
                if auto:
                    continue
                raise self._error(
                    f"{where}: cardinality auto is for the source of a transcription, which finds it. Write the number."
                )
            assert not isinstance(feature.cardinality, str)  # AUTO is the only text that a Feature accepts
            if feature.cardinality < 1:
                raise self._error(f"{where}: cardinality {feature.cardinality} is not positive.")
            dtype, largest_id = np.dtype(feature.dtype), feature.cardinality - 1
            if largest_id > np.iinfo(dtype).max:
                wider = [name for name in _ID_DTYPES if largest_id <= np.iinfo(name).max]
                raise self._error(
                    f"{where}: ids up to {largest_id} do not fit {feature.dtype} (at most {np.iinfo(dtype).max}). "
                    + (f"Use {wider[0]}, or the cardinality is wrong." if wider else "The cardinality is too large.")
                )

    def _validate_chunks(self, split: str, chunks: tuple[Chunk, ...]) -> None:
        seen: set[str] = set()
        for number, chunk in enumerate(chunks):
            where = f"source_spec: {split}: chunk {number}"
            if not chunk.files:
                raise self._error(f"{where}: names no files.")
            if not chunk.features:
                raise self._error(f"{where}: names no features.")
            for file in chunk.files:
                inside = PurePosixPath(file)
                if inside.is_absolute() or ".." in inside.parts or "\0" in file or not inside.parts:
                    raise self._error(f"{where}: file {file!r} leads out of the dataset folder. Use a path inside it.")
            for name in chunk.features:
                if name not in self.features:
                    raise self._error(f"{where}: feature {name!r} is not in feature_spec.")
                if name in seen:
                    raise self._error(f"{where}: feature {name!r} stands twice in {split!r}; once is right.")
                seen.add(name)
            if chunk.type == "split_binary":
                self._validate_split_binary(where, chunk)
        if missing := [name for name in self.features if name not in seen]:
            raise self._error(f"source_spec: {split}: no chunk holds feature {missing[0]!r}.")

    def _validate_split_binary(self, where: str, chunk: Chunk) -> None:
        """The published rules for files that a trainer reads."""
        first = chunk.features[0]
        offsets = int(self.features[first].ragged)
        if len(chunk.files) != 1 + offsets:
            right = f"exactly two are right, ids and row offsets of {first!r}" if offsets else "exactly one is right"
            raise self._error(f"{where}: has {len(chunk.files)} files; {right}.")
        dtypes = {self.features[name].dtype for name in chunk.features}
        if first in self.channels["categorical"]:
            if len(chunk.features) > 1:
                raise self._error(f"{where}: a categorical feature ({first!r}) needs a file of its own.")
            if not dtypes <= set(_ID_DTYPES):
                raise self._error(f"{where}: {first!r} has dtype {dtypes.pop()}; use one of {list(_ID_DTYPES)}.")
        elif first in self.channels["numerical"]:
            if chunk.features != self.channels["numerical"]:
                raise self._error(f"{where}: the numerical file must hold all numericals in the order of channel_spec.")
            if dtypes != {"float16"}:
                raise self._error(f"{where}: numericals have dtypes {sorted(dtypes)}; float16 is right.")
        elif len(chunk.features) > 1 or dtypes != {"bool"}:
            raise self._error(f"{where}: the label needs a file of its own and dtype bool, not {sorted(dtypes)}.")

    def _error(self, message: str) -> FeatureSpecError:
        return FeatureSpecError(f"{self.path}: {message}" if self.path else message)


def minimal_dtype(cardinality: int) -> str:
    """The published dtype rule: the smallest signed type whose maximum is strictly greater than the cardinality.

    Source: NVIDIA's get_categorical_feature_type. (127 gives int16 although ids up to 126 would fit int8.)
    """
    for dtype in _ID_DTYPES:
        if cardinality < np.iinfo(dtype).max:
            return dtype
    raise FeatureSpecError(f"cardinality {cardinality} is too large: ids are at most int32 (2147483646 of them).")


def tf_raw_spec(
    categorical: Iterable[Feature],
    num_numerical: int = NUM_NUMERICAL,
    *,
    splits: Iterable[str] = ("train", "test"),
    metadata: dict | None = None,
) -> FeatureSpec:
    """The spec of a dataset in the standard tf_raw layout.

    Args:
      categorical: features in table order; their names, cardinality, hotness and alpha are kept, their dtype becomes
        the smallest that the published rule allows.
      num_numerical: number of float16 columns, named num_0...
      splits: the splits that have files: <split>/{numerical,label,<categorical name>}.bin, and
        <split>/<categorical name>_offsets.bin for a ragged feature.

    Raises:
      FeatureSpecError: two features have the same name, or a cardinality is too large.
    """
    tables = [dataclasses.replace(feature, dtype=_standard_dtype(feature)) for feature in categorical]
    numerical = [Feature(f"num_{i}", "float16") for i in range(num_numerical)]
    features: dict[str, Feature] = {}
    for feature in [*tables, *numerical, Feature(LABEL, "bool")]:
        if feature.name in features:
            raise FeatureSpecError(f"two features are named {feature.name!r} in the standard layout. Rename one.")
        features[feature.name] = feature
    names = tuple(feature.name for feature in numerical)

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
    assert feature.cardinality is not None and not isinstance(feature.cardinality, str)
    try:
        return minimal_dtype(feature.cardinality)
    except FeatureSpecError as error:
        raise FeatureSpecError(f"{feature.name}: {error}") from None
