"""DCNv2 as users start it."""

import configparser
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_dataset import write_dataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("program", ["dlrm", "dcnv2"])
def test_the_console_script_says_its_name_and_its_defaults(program, capsys):
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    scripts = dict(line.split(" = ") for line in setup["options.entry_points"]["console_scripts"].strip().splitlines())
    module, function = scripts[program].split(":")
    with pytest.raises(SystemExit) as stop:
        getattr(importlib.import_module(module), function)(["--help"])
    assert not stop.value.code
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: {program} ")
    assert f"learning rate after the warm-up (default: {'0.0001' if program == 'dcnv2' else '24.0'})" in text


def test_a_small_training_run(tmp_path):
    write_dataset(tmp_path / "data")
    flags = f"""--dataset_path {tmp_path}/data --embedding_dim 4,2,6,1,8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1
        --cross_layer_projection_dim 3 --batch_size 100 --valid_batch_size 100 --learning_rate 0.01 --warmup_steps 0
        --epochs 2 --print_freq 1 --seed 1 --cpu --log_path {tmp_path}/log.json""".split()
    command = [sys.executable, "-m", "dlrm_tf2.dcnv2", *flags]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    log = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    assert (log[0]["interaction"], log[0]["optimizer"]) == ("cross", "adam")
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 20 and sum(losses[-5:]) < sum(losses[:5])
    assert log[-1]["auc"] > 0.55
