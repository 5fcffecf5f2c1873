"""A file of records to a tf_raw dataset."""

from pathlib import Path

from criteo_prep.feature_spec import Chunk, FeatureSpec
from criteo_prep.guard import check_apart
from criteo_prep.split_bin.dataset_spec import spec_of_form
from criteo_prep.split_bin.record import RecordForm, num_records
from criteo_prep.transcribe.layout_spec import all_features
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
    spec = spec_of_form(source.parent, form, slot_sizes)
    spec.sources = {"train": (Chunk(all_features(spec), (source.name,), "record_binary"),)}
    spec.path = source
    return spec
