"""The rules for the structure of a feature spec: names, dtypes, cardinalities, chunks, paths. No file is opened.

criteo_prep.feature_spec alone uses this module, and adds the spec's path to each message.
"""

import math
import re
from collections import Counter

import numpy as np

from criteo_prep.feature_spec_document import AUTO, CHANNELS, Chunk, Feature, FeatureSpecError
from criteo_prep.feature_spec_files import is_inside
from criteo_prep.schema import SPLITS

Features = dict[str, Feature]
Channels = dict[str, tuple[str, ...]]

ID_DTYPES = ("int8", "int16", "int32")
_LARGEST_HOTNESS = 2**31 - 1
KEY_DTYPE = "int64"
_TYPES_WITH_KEYS = ("split_binary", "parquet", "csv")  # of chunks
_WIDE_ID_DTYPES = ("uint32", "int64")  # in files of other layouts; the ids are nevertheless below 2**31


def check_structure(
    features: Features, channels: Channels, *, sources: dict[str, tuple[Chunk, ...]], auto: bool
) -> None:
    """Checks the parts of a FeatureSpec; see FeatureSpec for what they are.

    Args:
      features, channels, sources: the attributes of the spec.
      auto: whether a cardinality may be AUTO.

    Raises:
      FeatureSpecError: names the feature or chunk, what was found, and what is expected.
    """
    _check_features(features, channels)
    _check_channels(features, channels)
    for name in channels["categorical"]:
        _check_ids(features[name], auto)
    for split, chunks in sources.items():
        if split not in SPLITS:
            raise FeatureSpecError(f"source_spec: {split!r} is not one of {list(SPLITS)}.")
        _check_chunks(split, chunks, features=features, channels=channels)


def _check_features(features: Features, channels: Channels) -> None:
    for feature in features.values():
        where = f"feature_spec: {feature.name}"
        if not _is_number_type(feature.dtype):
            raise FeatureSpecError(
                f"{where}: dtype {feature.dtype!r} is not a numpy dtype of numbers. Write one such as int32 or float16."
            )
        if not 1 <= feature.hotness <= _LARGEST_HOTNESS:
            raise FeatureSpecError(f"{where}: hotness {feature.hotness} is not between 1 and {_LARGEST_HOTNESS}.")
        if feature.alpha is not None and not math.isfinite(feature.alpha):
            raise FeatureSpecError(f"{where}: alpha {feature.alpha} is not a finite number.")
        several_ids = feature.hotness > 1 or feature.ragged
        if several_ids and feature.name not in channels.get("categorical", ()):
            raise FeatureSpecError(f"{where}: has hotness {feature.hotness}, which only a categorical feature has.")
        if feature.key and feature.name not in channels.get("categorical", ()):
            raise FeatureSpecError(f"{where}: has key: true, but only a categorical feature holds keys.")


def _is_number_type(dtype: str) -> bool:
    """Whether numpy and all layouts know the dtype: bool, integers and floats of 8 bytes at most, in native order."""
    if not re.fullmatch(r"[<=|]?\w+", dtype, re.ASCII):
        return False
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return found.kind in "biuf" and found.itemsize <= 8 and found.isnative


def _check_channels(features: Features, channels: Channels) -> None:
    if sorted(channels) != sorted(CHANNELS):
        raise FeatureSpecError(f"channel_spec: has {sorted(channels)}, must have exactly {sorted(CHANNELS)}.")
    times = Counter(name for names in channels.values() for name in names)
    for name, count in times.items():
        if name not in features:
            raise FeatureSpecError(f"channel_spec: {name!r} is not in feature_spec.")
        if count > 1:
            raise FeatureSpecError(f"channel_spec: names {name!r} {count} times; it must name each feature once.")
    if missing := [name for name in features if name not in times]:
        raise FeatureSpecError(f"channel_spec: lacks {missing[0]!r} of feature_spec. Each feature needs a channel.")
    if (count := len(channels["label"])) != 1:
        raise FeatureSpecError(f"channel_spec: label has {count} features; it must have exactly one.")


def _check_ids(feature: Feature, auto: bool) -> None:
    """The cardinality of a categorical feature against its dtype."""
    where, cardinality = f"feature_spec: {feature.name}", feature.cardinality
    if feature.key:
        if cardinality is not None:
            raise FeatureSpecError(f"{where}: has key: true and a cardinality; keys have none. Leave one of them out.")
        if np.dtype(feature.dtype).name != KEY_DTYPE:
            raise FeatureSpecError(f"{where}: has key: true and dtype {feature.dtype}; keys are {KEY_DTYPE}.")
        return
    if cardinality is None:
        raise FeatureSpecError(f"{where}: a categorical feature needs a cardinality, the number of its ids.")
    if np.dtype(feature.dtype).name not in ID_DTYPES + _WIDE_ID_DTYPES:
        raise FeatureSpecError(f"{where}: dtype {feature.dtype} cannot hold ids; use one of {list(ID_DTYPES)}.")
    if isinstance(cardinality, str):
        if not auto:
            raise FeatureSpecError(
                f"{where}: cardinality {AUTO} is for the source of a transcription, which finds it. Write the number."
            )
        return
    if cardinality < 1:
        raise FeatureSpecError(f"{where}: cardinality {cardinality} is not positive.")
    largest_id, largest = cardinality - 1, np.iinfo(feature.dtype).max
    if largest_id > largest:
        wider = [name for name in ID_DTYPES if largest_id <= np.iinfo(name).max]
        advice = f"Use {wider[0]}, or correct the cardinality." if wider else "The cardinality is too large."
        raise FeatureSpecError(
            f"{where}: ids up to {largest_id} do not fit {feature.dtype} (at most {largest}). {advice}"
        )


def _check_chunks(split: str, chunks: tuple[Chunk, ...], *, features: Features, channels: Channels) -> None:
    seen: set[str] = set()
    for number, chunk in enumerate(chunks):
        where = f"source_spec: {split}: chunk {number}"
        if not chunk.files:
            raise FeatureSpecError(f"{where}: names no files.")
        if not chunk.features:
            raise FeatureSpecError(f"{where}: names no features.")
        for file in chunk.files:
            if not is_inside(file):
                raise FeatureSpecError(f"{where}: file {file!r} leads out of the dataset folder. Use a path inside it.")
        for name in chunk.features:
            if name not in features:
                raise FeatureSpecError(f"{where}: feature {name!r} is not in feature_spec.")
            if name in seen:
                raise FeatureSpecError(f"{where}: names feature {name!r} a second time; {split!r} must name it once.")
            seen.add(name)
            if features[name].key and chunk.type not in _TYPES_WITH_KEYS:
                raise FeatureSpecError(
                    f"{where}: {name!r} has key: true, and the type is {chunk.type!r}; keys are in files of the types "
                    f"{list(_TYPES_WITH_KEYS)}."
                )
        if chunk.type == "split_binary":
            _check_split_binary(where, chunk, features=features, channels=channels)
    if missing := [name for name in features if name not in seen]:
        raise FeatureSpecError(f"source_spec: {split}: no chunk holds feature {missing[0]!r}.")


def _check_split_binary(where: str, chunk: Chunk, *, features: Features, channels: Channels) -> None:
    """The published rules for the files that a trainer reads."""
    first = chunk.features[0]
    ragged = features[first].ragged
    if len(chunk.files) != 1 + ragged:
        expected = f"two files, ids and row offsets of {first!r}" if ragged else "one file"
        raise FeatureSpecError(f"{where}: has {len(chunk.files)} files; it must have exactly {expected}.")
    dtypes = {features[name].dtype for name in chunk.features}
    if first in channels["categorical"]:
        if len(chunk.features) > 1:
            raise FeatureSpecError(f"{where}: a categorical feature ({first!r}) needs a file of its own.")
        if not dtypes <= {*ID_DTYPES} and not features[first].key:
            raise FeatureSpecError(f"{where}: {first!r} has dtype {dtypes.pop()}; use one of {list(ID_DTYPES)}.")
    elif first in channels["numerical"]:
        if chunk.features != channels["numerical"]:
            raise FeatureSpecError(
                f"{where}: the numerical file must hold all numericals in the order of channel_spec."
            )
        if dtypes != {"float16"}:
            raise FeatureSpecError(f"{where}: numericals have dtypes {sorted(dtypes)}; they must be float16.")
    elif len(chunk.features) > 1 or dtypes != {"bool"}:
        raise FeatureSpecError(f"{where}: the label needs a file of its own and dtype bool, not {sorted(dtypes)}.")
