"""Runs the program's modes inside the test's process, where TensorFlow already runs: one rank, on the CPU."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import flags
from dlrm_tf2.job.start import Job, RunContext, start_job
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime import process
from dlrm_tf2.runtime.comm import Comm, SingleProcess
from dlrm_tf2.runtime.elastic import NOT_ELASTIC, NotElastic

TINY = """--embedding_dim 4 --bottom_mlp_dims 6,4 --top_mlp_dims 5,1 --batch_size 50 --valid_batch_size 40
    --learning_rate 0.5 --warmup_steps 0 --print_freq 1 --seed 3 --cpu --interaction_op tensorflow""".split()


@dataclass(frozen=True)
class Run:
    """The results of a run: its job, the records of its log, and the folder that holds the log."""

    job: Job
    records: list[dict]
    folder: Path

    def column(self, key: str) -> list:
        """The values of a key, in the order of the records that have it."""
        return [record[key] for record in self.records[1:] if key in record]


def run(
    dataset: Path,
    log_path: Path,
    *arguments: object,
    comm: Comm = SingleProcess(),  # noqa: B008 - SingleProcess has no state
    defaults: Mapping[str, object] | None = None,
    link: NotElastic = NOT_ELASTIC,
) -> Run:
    """Runs the mode that the arguments name, with a tiny model.

    Args:
      arguments: flags that replace the flags of TINY.
      defaults: flag -> default, where it is not the default of dlrm.
      link: link to the supervisor of an elastic job.
    """
    command = ["--dataset_path", dataset, *TINY, "--log_path", log_path, *arguments]
    config = flags.parse([str(argument) for argument in command], "dlrm", defaults)
    spec = FeatureSpec.load(Path(config.dataset_path) / config.feature_spec)
    compute_dtype = (config.amp_dtype or "bfloat16") if config.amp else "float32"
    device = process.Runtime("cpu", compute_dtype, threads=2, notes=())
    context = RunContext(config, spec, launch=process.Launch(), device=device, comm=comm, link=link)
    job = start_job(context, ModelConfig.of(config, spec))
    job.run()
    log = Path(config.log_path)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    first = max(number for number, record in enumerate(records) if "mode" in record)  # runs before it share the file
    return Run(job, records[first:], log.parent)
