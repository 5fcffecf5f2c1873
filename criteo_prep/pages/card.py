"""`criteo-prep report`: the card of a dataset, one HTML page about its rows, labels, features and thresholds."""

from dataclasses import dataclass
from pathlib import Path

from criteo_prep.destination import new_file
from criteo_prep.guard import check_apart
from criteo_prep.pages.categorical_facts import CategoricalFacts, categorical_facts
from criteo_prep.pages.charts import altair
from criteo_prep.pages.dataset import Dataset
from criteo_prep.pages.label_facts import LabelFacts, label_facts
from criteo_prep.pages.numerical_facts import NumericalFacts, numerical_facts
from criteo_prep.pages.page import BEGINNING
from criteo_prep.progress import Progress


@dataclass(frozen=True)
class Card:
    """What is known about a dataset.

    Attributes:
      dataset: the dataset.
      labels: rows and label rates.
      categorical: its categorical features, in the order of the spec.
      numerical: its numerical features, likewise; empty if the train split has no rows.
      embedding_dim: numbers in a row of a table, for the bytes of the tables.
    """

    dataset: Dataset
    labels: LabelFacts
    categorical: list[CategoricalFacts]
    numerical: list[NumericalFacts]
    embedding_dim: int

    def table_bytes(self, rows: int) -> int:
        """Bytes of a float32 table with so many rows."""
        return rows * self.embedding_dim * 4


def make_card(root: str | Path, *, embedding_dim: int = 128, quiet: bool = False) -> Card:
    """Reads a dataset: every file once or a few times, in pieces, so that memory does not grow with the rows.

    Args:
      root: the dataset folder.
      embedding_dim: numbers in a row of a table.
      quiet: show no progress.

    Raises:
      ValueError, OSError: the dataset is missing or damaged, or its samples cannot be read at any place.
    """
    if embedding_dim < 1:
        raise ValueError(f"--embedding_dim {embedding_dim}: must be at least 1.")
    dataset = Dataset(root)
    features = dataset.spec.categorical
    with Progress("report", len(features) + 2, unit="features", quiet=quiet) as progress:
        labels = label_facts(dataset)
        progress.advance(1)
        numerical = numerical_facts(dataset)
        progress.advance(1)
        categorical = []
        for feature in features:
            categorical.append(categorical_facts(dataset, feature))
            progress.advance(1)
    return Card(dataset, labels, categorical, numerical=numerical, embedding_dim=embedding_dim)


def write_card(root: str | Path, output: str | Path, *, embedding_dim: int = 128, quiet: bool = False) -> Card:
    """Reads a dataset and writes its card; the file appears when it is complete. Returns the card.

    Args:
      root: the dataset folder.
      output: the file to write, outside the folder. A page of this program is replaced, and no other file.
      embedding_dim, quiet: see make_card.

    Raises:
      ValueError, OSError: see make_card; or the output cannot be written, or the packages for charts are missing.
    """
    from criteo_prep.pages.card_page import card_page

    altair()  # is missing before the dataset is read, and not after
    check_apart(output, [root])
    with new_file(output, is_ours=_is_page, reads=[root], overwrite=True) as file:
        card = make_card(root, embedding_dim=embedding_dim, quiet=quiet)
        file.write(card_page(card).encode("utf-8", "replace"))
    return card


def _is_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING.encode()
