"""A file of records to a tf_raw dataset."""

from pathlib import Path

from criteo_prep.feature_spec import AUTO, Chunk, Feature, FeatureSpec
from criteo_prep.guard import check_apart
from criteo_prep.schema import CATEGORICAL, LABEL, NUM_CATEGORICAL, NUMERICAL
from criteo_prep.split_bin.record import RecordForm, num_records
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_spec


def split_to_tf_raw(
    source: str | Path,
    destination: str | Path,
    *,
    form: RecordForm,
    slot_sizes: list[int] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[int]:
    """Makes a tf_raw dataset with the records as its train split. Arguments, return value and errors as for split.

    Where form.dense_log says that the trainer must take log(x + 3), this function takes it.
    """
    source = Path(source)
    num_records(source, form)
    check_apart(destination, [source])
    request = Request(
        source.parent,
        "record_binary",
        dst_dataset_path=destination,
        dst_dataset_type="tf_raw",
        dense_log=form.dense_log,
        overwrite=overwrite,
    )
    transcribe_spec(request, _source_spec(source, form, slot_sizes), quiet=quiet)
    if slot_sizes:
        return slot_sizes
    finished = FeatureSpec.load(Path(destination) / request.dst_feature_spec)
    return [feature.cardinality for feature in finished.categorical]


def _source_spec(source: Path, form: RecordForm, slot_sizes: list[int] | None) -> FeatureSpec:
    """The spec of the file of records, as a record_binary dataset."""
    sizes = slot_sizes or [AUTO] * len(form.hotness)
    names = CATEGORICAL if len(sizes) == NUM_CATEGORICAL else [f"cat_{i}" for i in range(len(sizes))]
    tables = zip(names, sizes, form.hotness, strict=True)
    features = [
        Feature(LABEL, form.label_type),
        *(Feature(name, form.dense_type) for name in NUMERICAL),
        *(Feature(name, form.category_type, cardinality=size, hotness=hotness) for name, size, hotness in tables),
    ]
    order = tuple(feature.name for feature in features)
    channels = {"categorical": order[1 + len(NUMERICAL) :], "numerical": NUMERICAL, "label": (LABEL,)}
    sources = {"train": (Chunk(order, (source.name,), "record_binary"),)}
    return FeatureSpec(
        dict(zip(order, features, strict=True)), channels, sources=sources, metadata={}, root=source.parent, path=source
    )
