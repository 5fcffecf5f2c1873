"""The program: trains, evaluates or benchmarks DLRM, or prints how its tables would be divided over ranks.

python -m dlrm_tf2.dlrm --dataset_path DIR [--mode train|eval|inference|plan] ...
horovodrun -np 4 python -m dlrm_tf2.dlrm --dataset_path DIR ...
"""

import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: the packages are in this file's parent folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import flags
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import planning
from dlrm_tf2.job.program import connected_ranks, run_program
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.elastic import supervised
from dlrm_tf2.runtime.process import Launch

Prepared = tuple[TrainConfig, FeatureSpec, ModelConfig]


def main(
    arguments: list[str] | None = None, program: str = "dlrm", defaults: Mapping[str, object] | None = None
) -> int:
    """Runs the program; returns its exit status.

    Args:
      arguments: the command line; sys.argv when not given.
      program: name of the program in its messages.
      defaults: flag -> default, for the flags whose default differs from DLRM's.
    """

    def prepare() -> Prepared:
        config = flags.parse(sys.argv[1:] if arguments is None else arguments, program, defaults)
        spec = FeatureSpec.load(Path(config.dataset_path) / config.feature_spec)
        return config, spec, ModelConfig.of(config, spec)

    return run_program(program, prepare, _run)


def _run(prepared: Prepared, launch: Launch) -> None:
    config, spec, model_config = prepared
    if config.mode == "plan":
        if launch.rank == 0:
            print(
                planning.report_of(config, model_config, spec=spec, world_size=config.world_size or launch.world_size)
            )
        return
    is_elastic = config.elastic and config.mode == "train"
    with supervised(is_elastic, launch.rank) as link, connected_ranks(launch, config, link) as (device, comm):
        from dlrm_tf2.job.start import RunContext, start_job  # starts TensorFlow, which connected_ranks prepares

        start_job(RunContext(config, spec, launch=launch, device=device, comm=comm, link=link), model_config).run()


if __name__ == "__main__":
    sys.exit(main())
