"""A dataset whose samples a program provides: another form of files, samples in memory, samples that are made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from criteo_prep.batch import Batch
from criteo_prep.feature_spec import FeatureSpec


class Samples(Protocol):
    """The samples of a split, with the parts that a rank asked for."""

    num_samples: int

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop)."""

    def take(self, rows: np.ndarray) -> Batch:
        """The samples at these rows, int64 [n], in any order."""


@dataclass
class ProvidedSpec(FeatureSpec):
    """A feature spec with the samples of its splits. `sources` names the files that must not change meanwhile.

    Attributes:
      opens: split -> function of (names of features, seed) that returns the samples with these features.
      num_samples: split -> samples of a pass; at most the samples of `opens`.
      held_bytes: feature -> bytes in host memory on each rank that reads the feature; the entry of the label is for
        label and numericals, which every rank reads.
      advice: what to do where a run with these samples does not fit in memory.
      source: where the samples come from, for people.
    """

    opens: Mapping[str, Callable[[tuple[str, ...], int], Samples]] = field(default_factory=dict)
    num_samples: Mapping[str, int] = field(default_factory=dict)
    held_bytes: Mapping[str, int] = field(default_factory=dict)
    advice: str = ""
    source: str = ""
