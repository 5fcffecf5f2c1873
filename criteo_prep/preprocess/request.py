"""What is to be made, and the resources to make it with."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.machine import processors
from criteo_prep.preprocess.columns.encoder import GivenVocabularies
from criteo_prep.preprocess.columns.memory import MemoryPlan
from criteo_prep.preprocess.distributed.task_sizes import TaskSizes
from criteo_prep.preprocess.inputs import Inputs
from criteo_prep.preprocess.parse.row_writer import CHECKPOINT_BYTES
from criteo_prep.preprocess.parse.text_blocks import BLOCK_BYTES
from criteo_prep.preprocess.preflight import memory_limit
from criteo_prep.preprocess.rules import Rules
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL

FEATURE_SPEC = "feature_spec.yaml"


@dataclass(frozen=True)
class Resources:
    """What changes how the work is done, and not what is made.

    Attributes:
      workers: threads; None for one per processor that this process may use.
      memory_limit: bytes, or text such as "8G"; None for the available memory less a margin.
      quiet: show no progress.
      log: text file that takes the progress as JSON lines; None for no log.
      block_bytes, checkpoint_bytes: see parse_files.Parsing.
      task_sizes: how much one task of a cluster does.
    """

    workers: int | None = None
    memory_limit: int | str | None = None
    quiet: bool = False
    log: TextIO | None = None
    block_bytes: int = BLOCK_BYTES
    checkpoint_bytes: int = CHECKPOINT_BYTES
    task_sizes: TaskSizes = TaskSizes()

    @property
    def memory(self) -> MemoryPlan:
        return MemoryPlan(memory_limit(self.memory_limit), self.workers or processors())

    def progress(self, stage: str, total: int | None, unit: str) -> Progress:
        return Progress(stage, total, unit=unit, quiet=self.quiet, log=self.log)

    def say(self, line: str) -> None:
        if not self.quiet:
            print(f"criteo-prep: {line}", file=sys.stderr)


@dataclass(frozen=True)
class DatasetRequest:
    """What is to be made.

    Attributes:
      inputs: the input files, and how their rows become splits.
      rules: how rows become samples.
      wanted: the keys "made_by", "inputs" and "rules" of the manifest to write.
      keep_raw: keep the raw columns in the dataset.
      labelled: rows have labels.
      given: vocabularies to use; None to make vocabularies from the rows.
      reads: files and folders that the user named to be read; the dataset must not touch them.
    """

    inputs: Inputs
    rules: Rules
    wanted: dict
    keep_raw: bool = False
    labelled: bool = True
    given: GivenVocabularies | None = None
    reads: tuple[Path, ...] = ()

    @property
    def seed(self) -> int | None:
        """The seed of the order of the train rows; None for the order of the files."""
        return self.rules.seed if self.rules.shuffle == "global" else None

    @property
    def layout(self) -> FeatureSpec:
        """A feature spec that names every file; its cardinalities are not known yet."""
        return tf_raw_spec([Feature(name, "", 1) for name in CATEGORICAL], splits=self.inputs.split_names)
