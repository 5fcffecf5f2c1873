"""The feature spec of what split-bin reads and writes, in memory: a trainer reads the files as they are.

    DATA/train/metadata.json   types, sizes and hotness of both splits
    DATA/test/metadata.json    the same types and hotness; a size that is larger here counts, because split-bin finds
                               the sizes in the records of one split
    DATA/<split>/{label,dense,category}.bin         columns of 4-byte numbers, as split-bin writes them
    DATA/<split>/{label,dense,category_<i>}.bin     one file for each table: bool, float16, int8, int16 or int32

Source: the two datasets of the DLRM benchmark of HugeCTR's sparse operation kit. Its trainers read metadata.json of the
folder train only.
"""

from collections.abc import Iterable
from pathlib import Path

from criteo_prep.feature_spec import AUTO, Chunk, Feature, FeatureSpec, tf_raw_spec
from criteo_prep.schema import CATEGORICAL, LABEL, NUM_CATEGORICAL, NUM_NUMERICAL, NUMERICAL
from criteo_prep.split_bin.metadata import METADATA, read_metadata
from criteo_prep.split_bin.record import PARTS, RecordForm, SplitBinError, num_records_of_parts
from criteo_prep.transcribe.dense_log import DENSE_LOG

SPLITS = ("train", "test")


def spec_of_columns(folder: str | Path) -> FeatureSpec:
    """The spec of label.bin, dense.bin and category.bin in the folders train and test.

    Raises:
      SplitBinError: metadata.json or a file is missing or bad, or files of a split differ in their number of samples.
    """
    folder = Path(folder)
    form, sizes = read_metadata(folder / "train" / METADATA)
    for split in SPLITS:
        num_records_of_parts(folder / split, form)
    of_test = folder / "test" / METADATA
    if of_test.exists():
        test_form, test_sizes = read_metadata(of_test)
        if test_form != form:
            raise SplitBinError(
                f"{of_test}: says other types or hotness than {folder / 'train' / METADATA}. Split again."
            )
        sizes = [max(pair) for pair in zip(sizes, test_sizes, strict=True)]
    spec = spec_of_form(folder, form, sizes)
    channels = dict(zip(PARTS, (spec.channels[name] for name in ("label", "numerical", "categorical")), strict=True))
    spec.sources = {
        split: tuple(Chunk(names, (f"{split}/{part}.bin",), "record_binary") for part, names in channels.items())
        for split in SPLITS
    }
    spec.validate()
    return spec


def spec_of_files_per_table(folder: str | Path) -> FeatureSpec:
    """The spec of label.bin, dense.bin and category_<i>.bin in the folders train and test. The dense numbers are logs.

    Raises:
      SplitBinError: metadata.json is missing or bad.
      FeatureSpecError: a table is too large.
    """
    folder = Path(folder)
    form, sizes = read_metadata(folder / "train" / METADATA)
    spec = tf_raw_spec(_tables(form, sizes), NUM_NUMERICAL, splits=SPLITS)
    files = {name: f"category_{i}.bin" for i, name in enumerate(spec.channels["categorical"])}
    files |= {LABEL: "label.bin", spec.channels["numerical"][0]: "dense.bin"}
    spec.sources = {
        split: tuple(Chunk(chunk.features, (f"{split}/{files[chunk.features[0]]}",)) for chunk in chunks)
        for split, chunks in spec.sources.items()
    }
    return _placed(spec, folder)


def spec_of_sizes(folder: str | Path, alpha: float) -> FeatureSpec:
    """The spec of synthetic samples whose tables have the sizes in metadata.json, with ids by a power law. No files.

    Args:
      folder: folder with train/metadata.json.
      alpha: exponent of the power law; 0 for ids that are equally frequent.

    Raises:
      SplitBinError: metadata.json is missing or bad.
      FeatureSpecError: a table is too large.
    """
    folder = Path(folder)
    form, sizes = read_metadata(folder / "train" / METADATA)
    return _placed(tf_raw_spec(_tables(form, sizes, alpha), NUM_NUMERICAL, splits=()), folder)


def spec_of_form(folder: Path, form: RecordForm, slot_sizes: list[int] | None) -> FeatureSpec:
    """The features of records, without files; sizes that are not known are AUTO."""
    label, numerical = Feature(LABEL, form.label_type), [Feature(name, form.dense_type) for name in NUMERICAL]
    tables = _tables(form, slot_sizes or [AUTO] * len(form.hotness))
    channels = {
        "categorical": tuple(table.name for table in tables),
        "numerical": tuple(NUMERICAL),
        "label": (LABEL,),
    }
    features = {feature.name: feature for feature in (label, *numerical, *tables)}
    return _placed(FeatureSpec(features, channels, metadata={DENSE_LOG: form.dense_log}), folder)


def _tables(form: RecordForm, sizes: Iterable[int | str], alpha: float | None = None) -> list[Feature]:
    count = len(form.hotness)
    names = CATEGORICAL if count == NUM_CATEGORICAL else [f"cat_{i}" for i in range(count)]
    return [
        Feature(name, form.category_type, cardinality=size, hotness=hotness, alpha=alpha)
        for name, size, hotness in zip(names, sizes, form.hotness, strict=True)
    ]


def _placed(spec: FeatureSpec, folder: Path) -> FeatureSpec:
    """The spec with the folder as its root, and metadata.json as its file for messages."""
    spec.root, spec.path = folder, folder / "train" / METADATA
    return spec
