"""Which instruction sets a processor has, and training with each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.small_dataset import write_dataset
from test_ops_dot_interaction import native, train

from dlrm_tf2.model import interaction
from dlrm_tf2.runtime import instruction_sets
from dlrm_tf2.runtime.comm import SingleProcess

REPOSITORY = Path(__file__).resolve().parents[3]
AVX2 = "flags : fpu sse2 avx2 fma f16c\n"
AVX512 = AVX2 + "flags : avx512f avx512bw avx512vl avx512dq\n"


@pytest.mark.parametrize("cpuinfo, found", [
    ("", ["scalar"]), ("flags : fpu sse2 avx2\n", ["scalar"]), (AVX2, ["scalar", "avx2"]),
    (AVX2 + "flags : avx512f", ["scalar", "avx2"]), (AVX512, ["scalar", "avx2", "avx512"]),
    (AVX512 + "flags : avx512_bf16", ["scalar", "avx2", "avx512", "avx512_bf16"]),
    ("Features : fp asimd", ["scalar"]),
])  # fmt: skip
def test_instruction_sets_of_a_processor(tmp_path, cpuinfo, found):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert list(instruction_sets.of_processor(tmp_path / "cpuinfo")) == found
    assert instruction_sets.of_processor(tmp_path / "none") == ("scalar",)


@pytest.mark.long
@native
def test_training_has_the_same_losses_with_every_instruction_set(tmp_path):
    """In the native op and in oneDNN's ops, which TensorFlow uses on its own on some processors only."""
    spec = write_dataset(tmp_path)
    wanted = train(tmp_path, spec, SingleProcess(), interaction.NATIVE, steps=20)
    names = instruction_sets.of_processor()
    programs = [start_program(tmp_path, name) for name in names]
    for name, program in zip(names, programs, strict=True):
        printed, errors = program.communicate(timeout=300)
        assert program.returncode == 0, errors
        assert f"DLRM_TF2_CPU={name}: {name} for the native ops, at most " in printed
        assert f"interaction: the native op on the CPU ({name})" in printed
        records = map(json.loads, (tmp_path / f"{name}.json").read_text().splitlines())
        losses = [record["loss"] for record in records if "loss" in record]
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def start_program(root: Path, name: str) -> subprocess.Popen:
    """Trains on the dataset in `root` as `train` does, with an instruction set and with oneDNN's ops."""
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
    return subprocess.Popen(
        [sys.executable, "-m", "dlrm_tf2.dlrm", "--dataset_path", root, "--cpu", "--embedding_dim", "16",
         "--bottom_mlp_dims", "12,16", "--top_mlp_dims", "10,1", "--batch_size", "61", "--seed", "5",
         "--learning_rate", "0.3", "--warmup_steps", "0", "--print_freq", "1", "--max_steps", "20",
         "--evals_per_epoch", "0", "--intra_op_parallelism", "2", "--log_path", root / f"{name}.json"],
        env={**environment, "DLRM_TF2_CPU": name, "TF_ENABLE_ONEDNN_OPTS": "1"},
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
