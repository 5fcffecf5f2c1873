"""The published SOK benchmark: its data, its flags, its schedule, its row; the AUC of dlrm on the same data."""

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import in_process
from support.programs import REPOSITORY, horovodrun, needs_horovod, start

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.split_bin.dataset_spec import spec_of_columns
from criteo_prep.split_bin.files import split
from criteo_prep.split_bin.metadata import metadata_text, read_metadata
from criteo_prep.split_bin.record import RecordForm
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset
from dlrm_tf2 import ops, sok_benchmark
from dlrm_tf2.runtime import process
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.runtime.stopping import NEVER
from dlrm_tf2.training.schedule import Schedule

MULTI_HOT = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
FORMS = {
    "one-hot": RecordForm(),
    "multi-hot": RecordForm(dense_type="float32", hotness=MULTI_HOT, dense_log=False),
    "three tables": RecordForm(hotness=(1, 1, 2)),
}
SIZES = [20 + 7 * i for i in range(26)]
ROWS = {"train": 1300, "test": 300}
BATCH = 64  # 20 steps an epoch, and 20 samples that drop_last leaves out
SMALL = "--embedding_dim 4 --bottom_mlp_dims 6,4 --top_mlp_dims 5,1 --seed 3 --cpu".split()
RATES = "--lr 0.5 --warmup_steps 2 --decay_start_step 15 --decay_steps 10".split()


def write_records(path, form, rows, seed):
    """Random records; a click depends on the first dense number and on the first table."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, size, (rows, h)) for size, h in zip(SIZES, form.hotness, strict=False)]
    dense = rng.integers(-2, 60, (rows, 13))
    logits = 1.5 * np.log(dense[:, 0] + 4) - 4 + 3.0 * (ids[0][:, 0] % 2)
    label = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    if form.dense_type == "float32":
        dense = np.log(dense + 3.0).astype(np.float16).astype(np.float32).view(np.int32)
    np.column_stack([label, dense, *ids]).astype(np.int32).tofile(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Form -> the folder that split-bin made; and "<form>, tf_raw" -> the same samples in tf_raw."""
    folders = {}
    for name, form in FORMS.items():
        root = tmp_path_factory.mktemp(name)
        for number, (which, rows) in enumerate(ROWS.items()):
            write_records(root / f"{which}.bin", form, rows, number)
            split(
                root / f"{which}.bin",
                root / "DATA" / which,
                form=form,
                slot_sizes=SIZES[: len(form.hotness)],
                quiet=True,
            )
        folders[name], folders[f"{name}, tf_raw"] = root / "DATA", root / "tf_raw"
        spec_of_columns(root / "DATA").save(root / "DATA/feature_spec.yaml")
        request = Request(
            root / "DATA", "record_binary", dst_dataset_path=root / "tf_raw", dst_dataset_type="tf_raw",
            dense_log=form.dense_log,
        )  # fmt: skip
        transcribe_dataset(request, quiet=True)
    return folders


class Output:
    """A run of the benchmark: its job, what it printed, and its log."""

    def __init__(self, job, text, log):
        self.job, self.text = job, text
        self.records = [json.loads(line) for line in log.read_text().splitlines()]
        lines = text.splitlines()
        self.record = json.loads(lines[-1])
        header, _, row = lines[-4:-1]
        self.row = dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (header, row)),
                            strict=True))  # fmt: skip

    def column(self, key):
        return [record[key] for record in self.records[1:] if key in record]


@pytest.fixture
def run(data, tmp_path, capsys):
    def run(form, *arguments, comm=SingleProcess()):  # noqa: B008 - no state
        log = tmp_path / f"log_{comm.size}_{comm.rank}.json"
        log.unlink(missing_ok=True)
        command = ["--data_dir", data.get(form, form), "--global_batch_size", BATCH, *SMALL, *RATES, "--print_freq", 1,
                   "--log_path", log, *arguments]  # fmt: skip
        benchmark = sok_benchmark.prepare([str(word) for word in command])
        device = process.Runtime("cpu", "bfloat16" if benchmark.config.amp else "float32", threads=2, notes=())
        job = sok_benchmark.measure(benchmark, process.Launch(), device=device, comm=comm)
        return Output(job, capsys.readouterr().out, log) if comm.size == 1 else (job, log)

    return run


@pytest.mark.parametrize("form, rate", [("one-hot", 0.5), ("multi-hot", 0.01), ("three tables", 0.5)])
def test_the_auc_is_that_of_dlrm_on_the_same_samples(form, rate, run, data, tmp_path):
    mine = run(form, "--eval_in_last", "--lr", rate)
    same = """--batch_size 64 --valid_batch_size 64 --drop_last --lr_policy published --warmup_steps 2
        --decay_start_step 15 --decay_steps 10 --auc_thresholds 8000"""
    in_place = [form] if form == "three tables" else []  # dlrm reads split-bin's columns too, by their feature spec
    for folder in (f"{form}, tf_raw", *in_place):
        other = in_process.run(data[folder], tmp_path / "dlrm.json", *same.split(), "--learning_rate", rate)
        assert other.column("auc")[-1] == pytest.approx(mine.record["auc"], abs=1e-3)
        np.testing.assert_allclose(mine.column("loss"), other.column("loss"), rtol=1e-4)
    assert mine.record["auc"] not in (0, 0.5, 1) and mine.record["iterations"] == 20


def test_files_of_each_table_are_the_same_samples(run, data, tmp_path):
    folder = tmp_path / "DATA"
    for which in ROWS:
        shutil.copytree(data["three tables, tf_raw"] / which, folder / which)
        (folder / which / "numerical.bin").rename(folder / which / "dense.bin")
        for i, name in enumerate(spec_of_columns(data["three tables"]).channels["categorical"]):
            (folder / which / f"{name}.bin").rename(folder / which / f"category_{i}.bin")
    shutil.copy(data["three tables"] / "train/metadata.json", folder / "train")
    split_up = run(folder, "--use_splited_dataset", "--early_stop", 5)
    assert split_up.column("loss") == run("three tables", "--early_stop", 5).column("loss")
    (folder / "test/category_2.bin").unlink()
    with pytest.raises(ValueError, match=r"test/category_2.bin: there is no such file"):
        run(folder, "--use_splited_dataset")


def test_synthetic_samples_need_metadata_alone(run, data, tmp_path):
    (tmp_path / "DATA/train").mkdir(parents=True)
    shutil.copy(data["three tables"] / "train/metadata.json", tmp_path / "DATA/train")
    made = run(tmp_path / "DATA", "--use_synthetic_dataset", "--eval_in_last")
    assert made.record["iterations"] == 30 and made.row["exit criteria"] == "1 epoch"
    fewer = run(tmp_path / "DATA", "--use_synthetic_dataset", "--early_stop", 4)
    assert fewer.record["iterations"] == 4


def test_the_row_of_the_published_table(run):
    one = run("three tables", "--auc_threshold", 0.999, "--xla", "--amp", "--compress")
    assert list(one.row) == [
        "batch size", "exit criteria", "frequent of evaluation", "xla", "custom interact", "amp", "compress",
        "training time (minutes)", "evaluating time (minutes)", "total time (minutes)",
        "average time of iteration (ms)", "throughput(samples/second)",
    ]  # fmt: skip
    assert [*one.row.values()][:7] == ["64", "AUC > 0.999 (not reached)", "every 1 steps", "yes", "no", "yes", "yes"]
    times = one.record["training_min"], one.record["evaluating_min"], one.record["total_min"]
    assert times[0] + times[1] == pytest.approx(times[2]) and min(times) > 0
    assert one.record["iteration_ms"] == pytest.approx(times[0] * 60e3 / 20)
    assert one.record["samples_per_s"] == pytest.approx(20 * 64 / (times[0] * 60))
    assert float(one.row["average time of iteration (ms)"]) == pytest.approx(one.record["iteration_ms"], abs=0.01)
    assert one.records[0]["loss_scale"] == 1024
    for line in ("tables learn world_size times faster", "learning rate: 0 from step 26 on", "--compress does nothing"):
        assert line in one.text


def test_training_ends_above_the_threshold_and_not_at_it(run, data):
    whole = run("three tables", "--auc_threshold", 0.4)
    assert whole.record["iterations"] < 20 and whole.record["auc"] > 0.4
    assert whole.row["exit criteria"] == "AUC > 0.4"
    flags = ["--data_dir", str(data["three tables"]), "--global_batch_size", str(BATCH)]
    assert 0.8025 < sok_benchmark.prepare(flags).config.auc_threshold < 0.8025 + 1e-15


def test_evaluations_at_the_end_alone(run):
    one = run("three tables", "--eval_in_last")
    assert len(one.column("test_loss")) == 1 and one.record["eval_every"] is None
    assert (one.row["exit criteria"], one.row["frequent of evaluation"]) == ("1 epoch", "at end")
    assert run("three tables", "--eval_in_last", "--early_stop", 3).row["exit criteria"] == "3 iterations"


@pytest.mark.parametrize("batch, steps", [(55296, (2750, 49315, 27772)), (65536, (2320, 41609, 23432))])
def test_the_published_schedule(data, batch, steps):
    flags = ["--data_dir", str(data["three tables"]), "--use_synthetic_dataset", "--global_batch_size", str(batch)]
    config = sok_benchmark.prepare([*flags, *SMALL]).config
    assert (config.warmup_steps, config.decay_start_step, config.decay_steps) == steps
    assert (config.learning_rate, config.lr_policy, config.drop_last) == (24.0, "published", True)


def test_the_rates_of_the_steps(run):
    schedule = Schedule(24.0, 2750, decay_start_step=49315, decay_steps=27772, first=0)
    expected = {1: 0, 2: 24 / 2750, 2750: 24 * 2749 / 2750, 2751: 24, 49316: 24, 63202: 6, 77088: 0, 90000: 0}
    assert {step: schedule.at(step) for step in expected} == pytest.approx(expected)
    found = run("three tables", "--early_stop", 4, "--lr", 8, "--warmup_steps", 4).column("learning_rate")
    assert found == [0, 2, 4, 6]


def test_evaluations_come_every_5_percent_of_an_epoch(data, tmp_path):
    """The published data has 75868 steps of 55296 an epoch: an evaluation every 3793 steps."""
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    shutil.copy(data["three tables"] / "train/metadata.json", tmp_path / "train")
    for which in ROWS:
        for part, width in (("label", 4), ("dense", 52), ("category", 16)):
            with open(tmp_path / which / f"{part}.bin", "wb") as file:
                file.truncate(4_195_197_692 * width)  # a file with no blocks
    for batch, steps in ((55296, 3793), (65536, 3200)):
        flags = ["--data_dir", str(tmp_path), "--global_batch_size", str(batch)]
        assert sok_benchmark.prepare(flags).config.eval_every == steps


def tables_of(jobs):
    """Table -> its weights, from the shards of all ranks."""
    tables = {}
    for rank, layer in enumerate(job.model.embedding for job in jobs):
        for table in layer.tables:
            tables.setdefault(table.name, np.full((table.num_rows, table.embedding_dim), np.nan, np.float32))
        for shard in layer.plan.of_rank(rank):
            rows = layer.read_rows(shard, "weights", start=shard.rows[0], stop=shard.rows[1])
            tables[shard.table][slice(*shard.rows), slice(*shard.columns)] = rows
    return tables


def test_two_ranks_train_as_one_and_sok_gradients_make_their_tables_faster(run, run_ranks, monkeypatch):
    monkeypatch.setattr(
        "dlrm_tf2.job.start.StopRequest", lambda: contextlib.nullcontext(NEVER)
    )  # threads get no signal

    def of_two(*arguments):
        outcomes = run_ranks(2, lambda comm: run("three tables", "--eval_in_last", *arguments, comm=comm))
        records = [json.loads(line) for line in outcomes[0][1].read_text().splitlines()]
        return [job for job, _ in outcomes], [record["loss"] for record in records if "loss" in record]

    alone = {steps: run("three tables", "--eval_in_last", "--early_stop", steps) for steps in (1, 2, 5)}
    _, losses = of_two("--early_stop", 5, "--compress")
    np.testing.assert_allclose(losses, alone[5].column("loss"), rtol=1e-5)
    jobs, losses = of_two("--early_stop", 2, "--sok_gradients")
    np.testing.assert_allclose(losses, alone[2].column("loss"), rtol=1e-5)
    first, plain, sok = tables_of([alone[1].job]), tables_of([alone[2].job]), tables_of(jobs)
    for name, weights in first.items():  # the first weights, because the rate of the first step is 0
        assert np.abs(plain[name] - weights).max() > 1e-4
        np.testing.assert_allclose(sok[name] - weights, 2 * (plain[name] - weights), atol=1e-6)


BAD = [
    (["--global_batch_size", "64"], "--data_dir is missing"),
    (["--data_dir", "{data}"], "--global_batch_size is missing"),
    (["--data_dir", "{data}", "--global_batch_size", "0"], "--global_batch_size is 0; it must be at least 1"),
    (["--data_dir", "{data}", "--global_batch_size", "x"], "--global_batch_size: invalid int value: 'x'"),
    (["--data_dir", "{data}", "--global_batch_size", "9999"], "holds 1300 samples, fewer than --global_batch"),
    (["--data_dir", "{data}/none", "--global_batch_size", "64"], "none/train/metadata.json: there is no such file"),
    (["--early_stop", "0"], "--early_stop is 0; use -1"),
    (["--lr", "-1"], "--lr is -1.0; it must be positive"),
    (["--batch_size", "64"], "--batch_size: --global_batch_size decides this here"),
    (["--dedup-ids=on"], "--dedup_ids: --compress decides this here"),
    (["--optimizer_name", "sgd"], "--optimizer_name: --optimizer decides this here"),
    (["--compres"], "--compres is not a flag"),
    (["--use_splited_dataset", "--use_synthetic_dataset"], "the data is one or the other"),
    (["--eval_in_last", "--auc_threshold", "0.8"], "only the end is evaluated"),
    (["--mode", "eval", "--restore_checkpoint_path", "x"], "--mode eval: this program trains"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_flags_and_missing_data_are_one_line(data, arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = (
        [] if "{" in str(arguments) or "missing" in message else ["--data_dir", "{data}", "--global_batch_size", "64"]
    )
    words = [word.format(data=data["three tables"]) for word in [*whole, *arguments]]
    assert sok_benchmark.main(words) == 1
    error = capfd.readouterr().err
    assert error.startswith("sok_benchmark: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def cut(folder):
    (folder / "train/dense.bin").write_bytes((folder / "train/dense.bin").read_bytes()[:-52])


def other_sizes(folder, *splits):
    for which in splits or ROWS:
        form, _ = read_metadata(folder / which / "metadata.json")
        (folder / which / "metadata.json").write_text(metadata_text(form, [3] * 3))


def other_types(folder):
    form, sizes = read_metadata(folder / "test/metadata.json")
    (folder / "test/metadata.json").write_text(metadata_text(replace(form, dense_type="float32"), sizes))


@pytest.mark.parametrize("damage, message", [
    (cut, r"train: the files have different numbers of records: .*'dense': 1299"),
    (other_sizes, r"train/category.bin: row \d+: id \d+ of '\w+' is not below its cardinality 3"),
    (other_types, r"test/metadata.json: says other types or hotness than .*train/metadata.json"),
    (lambda folder: (folder / "test/category.bin").unlink(), r"test/category.bin: there is no such file"),
])  # fmt: skip
def test_data_that_contradicts_itself_is_named(run, data, tmp_path, damage, message):
    shutil.copytree(data["three tables"], tmp_path / "DATA")
    damage(tmp_path / "DATA")
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "DATA", "--early_stop", 2)


@pytest.mark.parametrize("smaller", ROWS)
def test_the_larger_size_of_the_two_splits_counts(data, tmp_path, smaller):
    """split-bin without --slot_size_array finds the sizes in the records of one split."""
    shutil.copytree(data["three tables"], tmp_path / "DATA")
    other_sizes(tmp_path / "DATA", smaller)
    assert [table.cardinality for table in spec_of_columns(tmp_path / "DATA").categorical] == SIZES[:3]


@pytest.mark.skipif(not ops.available(), reason=f"the op library is not available: {ops.why_unavailable()}")
def test_custom_interact_is_the_native_op(run):
    assert run("three tables", "--custom_interact", "--early_stop", 1).job.model.interaction.name != "tensorflow"
    assert run("three tables", "--early_stop", 1).job.model.interaction.name == "tensorflow"


WRAPPER = REPOSITORY / "examples/hvd_wrapper.sh"
LAUNCHER_VARIABLES = ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


@pytest.mark.parametrize("gpus, variables, expected", [
    (4, {}, "unset"),
    (4, {"HOROVOD_LOCAL_RANK": "3"}, "3"),
    (4, {"OMPI_COMM_WORLD_LOCAL_RANK": "0"}, "0"),
    (2, {"SLURM_LOCALID": "3"}, "1"),
    (4, {"SLURM_LOCALID": ""}, "unset"),
    (4, {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "5,6"}, "5,6"),
    (0, {"HOROVOD_LOCAL_RANK": "1"}, "unset"),
])  # fmt: skip
def test_the_wrapper_gives_each_rank_a_gpu_and_never_an_empty_list(tmp_path, gpus, variables, expected):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n" + "".join(f"echo 'GPU {i}: one'\n" for i in range(gpus)))
    (tmp_path / "nvidia-smi").chmod(0o755)
    kept = {
        name: value for name, value in os.environ.items() if name not in (*LAUNCHER_VARIABLES, "CUDA_VISIBLE_DEVICES")
    }
    environment = {**kept, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    show = 'echo "${CUDA_VISIBLE_DEVICES-unset}"; exit 3'
    made = subprocess.run([WRAPPER, "sh", "-c", show], env=environment, capture_output=True, text=True)
    assert (made.stdout.strip(), made.returncode) == (expected, 3)


@pytest.mark.long
@needs_horovod
def test_the_published_command(data, tmp_path):
    launcher = [*horovodrun(2), str(WRAPPER)]
    arguments = ["--data_dir", data["three tables"], "--global_batch_size", BATCH, "--compress", "--eval_in_last",
                 *SMALL, *RATES, "--early_stop", 6]  # fmt: skip
    made = start(arguments, launcher, ("-m", "dlrm_tf2.sok_benchmark"), cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert made.returncode == 0, made.stderr
    line = next(line for line in made.stdout.splitlines() if '"iteration_ms"' in line)
    record = json.loads(line[line.index("{") :])
    assert (record["ranks"], record["compress"], record["iterations"]) == (2, True, 6)
    assert "| 64 " in made.stdout and list(Path(tmp_path).iterdir()) == []


def test_a_spec_of_columns_is_a_feature_spec(data):
    loaded = FeatureSpec.load(data["three tables"] / "feature_spec.yaml")
    assert loaded.metadata == {"dense_log": True} and loaded.splits == ("train", "test")
