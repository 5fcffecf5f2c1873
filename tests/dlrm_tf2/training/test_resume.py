"""An interrupted run goes on by the same command, as if nothing had been; everything else is a new run or refused."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import in_process
from support.checkpoint_case import PLANS, TABLES, dense_of, weights_of
from support.small_dataset import write_dataset

from dlrm_tf2.checkpoint import CheckpointError, save_checkpoint
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import start
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.runtime.stopping import NEVER
from dlrm_tf2.training.resume import MAY_DIFFER, Resumption, flags_without_effect
from dlrm_tf2.training.step import TrainingStep

# Which checkpoint --resume finds, and what it makes of it.

CONFIG = TrainConfig(dataset_path="data", seed=3, bottom_mlp_dims=(64, 128))


@pytest.fixture
def saved(array_embedding, tmp_path):
    """`saved(run, **changes of the configuration)`: a checkpoint of step 7, and the configuration that goes on."""

    def saved(run, **changes):
        embedding = array_embedding(TABLES, PLANS["1 whole"], 0, weights=weights_of())
        document = {"step": 7, "config": dataclasses.asdict(CONFIG) | changes, "run": run}
        save_checkpoint(tmp_path / "saved", SingleProcess(), dense=dense_of(0), embedding=embedding, document=document)
        return dataclasses.replace(CONFIG, save_checkpoint_path=str(tmp_path / "saved"))

    return saved


def find(config):
    return Resumption.find(config, SingleProcess())


UNFINISHED = {"finished": False, "id": "abc"}


def test_an_unfinished_run_goes_on_and_says_so(saved, tmp_path):
    found = find(saved(UNFINISHED))
    assert (found.path, found.step, found.seed, found.run) == (str(tmp_path / "saved"), 7, 3, "abc")
    said = "holds an unfinished run, which resumes after step 7 (--resume off begins a new run)"
    assert found.notes == (f"{tmp_path / 'saved'}: {said}",)


def test_it_is_found_where_a_save_was_killed_as_it_replaced_it(saved, tmp_path):
    config = saved(UNFINISHED)
    (tmp_path / ".saved.partial").mkdir()
    os.rename(tmp_path / "saved", tmp_path / ".saved.old")
    assert find(config).step == 7


@pytest.mark.parametrize("run, flags, said", [
    ({"finished": True, "id": "abc"}, {}, "holds a finished run (step 7); this is a new run"),
    (None, {}, "holds a finished run (step 7)"),  # saved before checkpoints said it
    (UNFINISHED, {"resume": "off"}, "holds an unfinished run (step 7); --resume off begins a new run"),
    (UNFINISHED, {"resume": "off", "learning_rate": 1.0}, "whose first checkpoint replaces it"),
])  # fmt: skip
def test_a_new_run_in_its_place_is_said(saved, run, flags, said):
    found = find(dataclasses.replace(saved(run), **flags))
    assert found.path is None and found.run != "abc" and said in found.notes[0]


def test_an_elastic_job_resumes_its_own_run_and_no_other(saved):
    """Its ranks are started again with the same flags, even where --resume off began the run."""
    config = dataclasses.replace(saved(UNFINISHED), resume="off")
    own = Resumption.find(config, SingleProcess(), job="abc")
    assert (own.step, own.run) == (7, "abc") and own.resumes
    other = Resumption.find(config, SingleProcess(), job="def")
    assert other.run == "def" and not other.resumes


def test_an_elastic_job_that_has_finished_begins_no_new_run(saved):
    config = saved({"finished": True, "id": "abc"})
    with pytest.raises(CheckpointError, match=r"saved: holds the finished run \(step 7\); a rank was lost"):
        Resumption.find(config, SingleProcess(), job="abc")
    assert Resumption.find(config, SingleProcess(), job="def").run == "def"


def test_other_modes_and_empty_places_have_nothing_to_go_on_with(saved, tmp_path):
    config = saved(UNFINISHED)
    assert find(dataclasses.replace(config, mode="eval", restore_checkpoint_path="x")).path is None
    (tmp_path / "empty").mkdir()
    for place in ("empty", "absent"):
        found = find(dataclasses.replace(config, save_checkpoint_path=str(tmp_path / place)))
        assert found.path is None and not found.notes


def test_what_is_left_of_another_run_is_named(saved, tmp_path):
    config = saved(UNFINISHED)
    for name in ("saved.step-3", "saved.best"):
        shutil.copytree(tmp_path / "saved", tmp_path / name)
    assert len(find(config).notes) == 1  # they are this run's
    notes = find(dataclasses.replace(config, resume="off")).notes
    assert "saved.step-3" in notes[1] and "saved.best: of another run" in notes[1]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig) if field.name != "mode"])
def test_another_configuration_is_refused_with_both_values(saved, name):
    config = saved(UNFINISHED, **{name: (8, 9)})
    if name in MAY_DIFFER | flags_without_effect(CONFIG):
        assert find(config).step == 7
        return
    with pytest.raises(CheckpointError, match="holds an unfinished run .step 7. with another configuration") as error:
        find(config)
    value = getattr(CONFIG, name)
    value = ",".join(map(str, value)) if isinstance(value, tuple) else "not given" if value is None else value
    assert f": --{name} was 8,9, is {value}. Give the flags as they were" in str(error.value)


def test_the_flags_that_may_differ_are_those_of_the_documentation():
    text = (Path(__file__).resolve().parents[3] / "docs/checkpoints.md").read_text(encoding="utf-8")
    listed = re.search(r"\nFlags that may change when a run is resumed(.*?) A `seed`", text, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", listed)) == MAY_DIFFER
    assert MAY_DIFFER <= {field.name for field in dataclasses.fields(TrainConfig)}


def test_a_seed_that_is_not_given_is_that_of_the_run(saved):
    config = saved(UNFINISHED, seed=99)
    assert find(dataclasses.replace(config, seed=None)).seed == 99
    with pytest.raises(CheckpointError, match="--seed was 99, is 3"):
        find(config)


def test_a_flag_that_the_saved_run_did_not_know_has_its_default(saved, tmp_path):
    config = saved(UNFINISHED)
    manifest = json.loads((tmp_path / "saved/manifest.json").read_text())
    del manifest["document"]["config"]["combiner"]
    (tmp_path / "saved/manifest.json").write_text(json.dumps(manifest))
    assert find(config).step == 7
    with pytest.raises(CheckpointError, match="--combiner was sum, is mean"):
        find(dataclasses.replace(config, combiner="mean"))


def test_damage_and_other_files_are_refused(saved, tmp_path):
    config = saved(UNFINISHED)
    (tmp_path / "saved/notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds files that do not belong to a checkpoint"):
        find(config)
    (tmp_path / "saved/notes.txt").unlink()
    os.truncate(tmp_path / "saved/manifest.json", 100)
    with pytest.raises(CheckpointError, match="manifest.json: is not whole"):
        find(config)


# The log of a run that goes on.


def lines(path):
    return path.read_text().splitlines()


def test_the_log_goes_on_where_the_checkpoint_was(tmp_path):
    path = tmp_path / "log.json"
    log = RunLog(str(path), enabled=True)
    for record in ({"mode": "train", "run": "abc"}, {"step": 6, "loss": 0.6}, {"step": 7, "loss": 0.7},
                   {"step": 7, "auc": 0.5}, {"step": 8, "loss": 0.8}, {"throughput": 1}):  # fmt: skip
        log.record(record)
    log.close()
    kept = lines(path)[:4]
    with open(path, "a") as file:
        file.write('{"step": 9, "lo')  # as far as it came
    shutil.copy(path, tmp_path / "other.json")
    log = RunLog(str(path), enabled=True, resumed=("abc", 7))
    assert log.continues
    log.record({"step": 8, "loss": 0.81})
    assert lines(path) == [*kept, '{"step": 8, "loss": 0.81}']
    of_abc = lines(tmp_path / "other.json")[:-1]  # without the cut line
    other = RunLog(str(tmp_path / "other.json"), enabled=True, resumed=("another", 7))
    assert not other.continues and lines(tmp_path / "other.json") == of_abc
    assert not RunLog(str(tmp_path / "absent.json"), enabled=True, resumed=("abc", 7)).continues


# Whole runs.

STATEFUL = """--amp --amp_dtype float16 --loss_scaling dynamic --loss_scale 1e9 --optimizer adam --learning_rate 0.01
    --shuffle window --shuffle_window 70 --epochs 2 --evals_per_epoch 2 --checkpoint_every 5""".split()


class Interrupted(BaseException):
    """The process ended here."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=420, test=100, cardinalities=(20, 7))
    return root


@pytest.fixture
def interrupt(monkeypatch):
    """`interrupt(step)`: the next run ends before that step; `interrupt(None)`: it does not."""
    step_of = TrainingStep.__call__
    at = [None]

    def call(self, batch, learning_rate, *, step, **others):
        if step == at[0]:
            raise Interrupted
        return step_of(self, batch, learning_rate, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", call)
    return lambda step: at.__setitem__(0, step)


def test_resumed_twice_it_is_as_if_it_had_not_been_interrupted(data, tmp_path, interrupt, capsys):
    """In the first pass and in the second; the loss scale, adam's state and the order of the samples go on too."""
    whole = in_process.run(data, tmp_path / "whole.json", *STATEFUL, "--save_checkpoint_path", tmp_path / "whole")
    assert len(whole.column("loss")) == 18 and whole.column("skipped_steps")[0] > 0
    arguments = [data, tmp_path / "log.json", *STATEFUL, "--save_checkpoint_path", tmp_path / "saved"]
    for step, resumed in ((7, None), (14, 5)):
        interrupt(step)
        with pytest.raises(Interrupted):
            in_process.run(*arguments)
        if resumed:
            assert f"saved: holds an unfinished run, which resumes after step {resumed}" in capsys.readouterr().out
    interrupt(None)
    run = in_process.run(*arguments)
    for key in ("loss", "learning_rate", "auc", "test_loss", "skipped_steps", "validation_loss"):
        assert run.column(key) == whole.column(key), key
    steps = [record["step"] for record in run.records if "loss" in record]
    assert steps == list(range(1, 19))
    assert [record["resumed_step"] for record in run.records if "resumed_step" in record] == [5, 10]
    assert len({record["run"] for record in run.records if "run" in record}) == 1
    again = in_process.run(*arguments, "--max_steps", 2)
    assert "holds a finished run (step 18); this is a new run" in capsys.readouterr().out
    assert again.column("loss") == whole.column("loss")[:2] and again.records[0]["run"] != run.records[0]["run"]


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_16_bit_tables_resume_bit_for_bit(data, tmp_path, interrupt, optimizer):
    """The same random bits round the weights of a step that is made again."""
    flags = ["--optimizer", optimizer, "--learning_rate", 0.05, "--table_dtype", "bfloat16", "--checkpoint_every", 3]
    whole = in_process.run(data, tmp_path / "whole.json", *flags, "--save_checkpoint_path", tmp_path / "whole")
    arguments = [data, tmp_path / "log.json", *flags, "--save_checkpoint_path", tmp_path / "saved"]
    interrupt(5)
    with pytest.raises(Interrupted):
        in_process.run(*arguments)
    interrupt(None)
    with pytest.raises(CheckpointError, match="--table_dtype was bfloat16, is float32"):
        in_process.run(*arguments, "--table_dtype", "float32")
    run = in_process.run(*arguments)
    assert run.column("loss") == whole.column("loss") and len(run.column("loss")) == 9
    files = sorted((tmp_path / "whole/tables").iterdir())
    assert len(files) == 2 * (1 + len(run.job.model.embedding.slots[1:]))
    for file in files:
        assert file.read_bytes() == (tmp_path / "saved/tables" / file.name).read_bytes(), file.name


def test_stopped_early_by_auc_threshold_is_finished(data, tmp_path, capsys):
    arguments = [data, tmp_path / "log.json", "--eval_every", 2, "--auc_threshold", 0.01, "--save_checkpoint_path",
                 tmp_path / "saved"]  # fmt: skip
    assert len(in_process.run(*arguments).column("loss")) == 2
    assert len(in_process.run(*arguments).column("loss")) == 2
    assert "holds a finished run (step 2); this is a new run" in capsys.readouterr().out


def test_resumed_on_two_ranks_by_another_plan(data, tmp_path, interrupt, run_ranks, monkeypatch):
    flags = ["--optimizer", "adagrad", "--checkpoint_every", 3]
    whole = in_process.run(data, tmp_path / "whole.json", *flags, "--save_checkpoint_path", tmp_path / "whole")
    arguments = [data, tmp_path / "log.json", *flags, "--save_checkpoint_path", tmp_path / "saved"]
    interrupt(5)
    with pytest.raises(Interrupted):
        in_process.run(*arguments)
    interrupt(None)
    monkeypatch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(NEVER))  # signals are the main thread's

    def work(ranks):
        plan = ["--dist_strategy", "basic", "--row_slice_threshold", 60, "--data_parallel_input"]
        return in_process.run(*arguments, *plan, comm=ranks).column("loss")

    for outcome in run_ranks(2, work):
        if isinstance(outcome, BaseException):
            raise outcome
    records = [json.loads(line) for line in lines(tmp_path / "log.json")]
    assert [record["world_size"] for record in records if "world_size" in record] == [1, 2]
    losses = [record["loss"] for record in records if "loss" in record]
    np.testing.assert_allclose(losses, whole.column("loss"), rtol=1e-5)


def test_other_data_is_refused(data, tmp_path, interrupt):
    write_dataset(tmp_path / "data", train=420, test=100, cardinalities=(20, 7))
    arguments = [tmp_path / "data", tmp_path / "log.json", "--checkpoint_every", 3, "--save_checkpoint_path",
                 tmp_path / "saved"]  # fmt: skip
    interrupt(5)
    with pytest.raises(Interrupted):
        in_process.run(*arguments)
    shutil.rmtree(tmp_path / "data")
    write_dataset(tmp_path / "data", train=400, test=100, cardinalities=(20, 7))
    with pytest.raises(
        ValueError, match="data: does not hold the dataset of the unfinished run in .* the content differs"
    ):
        in_process.run(*arguments)


def test_the_content_of_the_data_decides_and_not_its_path(data, tmp_path, interrupt):
    write_dataset(tmp_path / "data", train=420, test=100, cardinalities=(20, 7))
    arguments = [tmp_path / "log.json", "--checkpoint_every", 3, "--save_checkpoint_path", tmp_path / "saved"]
    interrupt(5)
    with pytest.raises(Interrupted):
        in_process.run(tmp_path / "data", *arguments)
    shutil.copytree(tmp_path / "data", tmp_path / "scratch")
    ids = np.fromfile(tmp_path / "data/train/cat_0.bin", np.int8)
    ids[::-1].tofile(tmp_path / "data/train/cat_0.bin")  # the same size, other samples
    interrupt(None)
    with pytest.raises(CheckpointError, match="the content differs. Bring that dataset back, in any folder"):
        in_process.run(tmp_path / "data", *arguments)
    run = in_process.run(f"{tmp_path}/saved/../scratch/", *arguments)
    assert [record["step"] for record in run.records if "loss" in record] == list(range(1, 10))


def test_a_flag_without_effect_may_change(saved):
    assert find(saved(UNFINISHED, beta1=0.5, shuffle_window=7, loss_scale=2.0)).step == 7
    with pytest.raises(CheckpointError, match="--beta1 was 0.5, is 0.9"):
        find(dataclasses.replace(saved(UNFINISHED, beta1=0.5, optimizer="adam"), optimizer="adam"))
