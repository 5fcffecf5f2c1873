"""DCNv2: dlrm with other defaults."""

import configparser
import importlib
from pathlib import Path

import pytest
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.dcnv2 import DEFAULTS

REPOSITORY = Path(__file__).resolve().parents[3]


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
    flags = """--embedding_dim 4,2,6,1,8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1 --cross_layer_projection_dim 3
        --batch_size 100 --valid_batch_size 100 --learning_rate 0.01 --epochs 2 --interaction_op auto""".split()
    run = in_process.run(tmp_path / "data", tmp_path / "log.json", *flags, defaults=DEFAULTS)
    assert (run.records[0]["interaction"], run.records[0]["optimizer"]) == ("cross", "adam")
    losses = run.column("loss")
    assert len(losses) == 20 and sum(losses[-5:]) < sum(losses[:5])
    assert run.records[-1]["auc"] > 0.55
