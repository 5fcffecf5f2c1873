"""What is to be made of a log that a schema describes."""

from dataclasses import dataclass
from pathlib import Path

from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.preprocess.columns.encoder import GivenVocabularies
from criteo_prep.table.cells import ColumnKind
from criteo_prep.table.files import TableFiles
from criteo_prep.table.journal import TableJournal
from criteo_prep.table.schema import TableSchema
from criteo_prep.table.splits import RowSplits

PREPROCESS, ENCODE = "criteo-prep preprocess --schema", "criteo-prep encode --schema"  # "made_by"
FEATURE_SPEC = "feature_spec.yaml"


@dataclass(frozen=True)
class Given:
    """What new rows take from a finished dataset.

    Attributes:
      vocabularies: the vocabulary of each feature.
      statistics: the statistics of the numericals.
      kinds: the kind of each vocabulary's values.
      spec: the feature spec of the dataset.
    """

    vocabularies: GivenVocabularies
    statistics: dict[str, dict]
    spec: FeatureSpec


@dataclass(frozen=True)
class TableRequest:
    """What is to be made.

    Attributes:
      schema: what the columns are.
      files: the input files.
      wanted: the keys "made_by", "inputs" and "rules" of the manifest to write.
      vocabulary_days: "all", or "train" to count the values of the train rows only.
      skip_bad_rows: whether bad rows are left out and counted.
      seed: seed of a random order of the train rows; None for the order of the files.
      labelled: rows have labels.
      given: what new rows take from a finished dataset; None to make it from the rows.
      reads: files and folders that the user named to be read; the dataset must not touch them.
    """

    schema: TableSchema
    files: TableFiles
    wanted: dict
    vocabulary_days: str = "all"
    skip_bad_rows: bool = False
    seed: int | None = None
    labelled: bool = True
    given: Given | None = None
    reads: tuple[Path, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test",) if self.given else self.schema.split.names


@dataclass(frozen=True)
class TableWork:
    """The parsed rows of a request, and the dataset that is made from them.

    Attributes:
      root: the staging folder.
      request: what is to be made.
      journal: the parsed rows, and which features are finished.
      splits: the split of every row.
    """

    root: Path
    request: TableRequest
    journal: TableJournal
    splits: RowSplits

    @property
    def schema(self) -> TableSchema:
        return self.request.schema

    @property
    def seed(self) -> int | None:
        return self.request.seed

    def features(self, cardinalities: list[int]) -> list[Feature]:
        """The categorical features, by their cardinalities."""
        return [
            Feature(each.feature, "", cardinality, hotness=each.hotness or 1, ragged=is_ragged(each.hotness, kind))
            for each, kind, cardinality in zip(self.schema.categorical, self.journal.kinds, cardinalities, strict=True)
        ]

    def spec(self, cardinalities: list[int]) -> FeatureSpec:
        """The feature spec of the dataset."""
        names = [each.feature for each in self.schema.numerical]
        return tf_raw_spec(self.features(cardinalities), numerical_names=names, splits=tuple(self.splits.num_rows))


def is_ragged(hotness: int | None, kind: ColumnKind) -> bool:
    """Whether samples of a feature have different numbers of ids."""
    return kind.is_list and hotness is None
