"""Each published table with the rows of this project: which program runs at which scale, and what differs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from published_figures import PUBLISHED

from criteo_prep.feature_spec import tf_raw_spec
from criteo_prep.synthetic.presets import PRESETS
from dlrm_tf2.benchmarks.zoo import MODELS, PUBLISHED_BATCH_SIZE, PUBLISHED_MS

RESULTS = Path(__file__).resolve().parent / "results"
WIDTH = 128  # of the tables of a DLRM
GIB = 2**30
DLRM = "dlrm_tf2.dlrm --cpu --dataset_path data --dataset_type synthetic --batch_size 8192 --seed 1"

Measure = Callable[..., dict]  # Measurements.measure of bench/published.py


class Sizes(NamedTuple):
    """How much the runs do.

    Attributes:
      scale: factor of the rows of all tables, besides the factor that makes a model fit.
      steps: steps of a run without a dataset.
      samples: training samples of a run with a dataset.
    """

    scale: float
    steps: int
    samples: int


FULL = Sizes(scale=1, steps=20, samples=200_000)
QUICK = Sizes(scale=0.002, steps=4, samples=10_000)


class Table(NamedTuple):
    """The rows of a table, published and measured here, and what differs."""

    rows: list[list[str]]
    differs: str


def dlrm_sizes(measure: Measure, sizes: Sizes) -> Table:
    rows = []
    for published, shape in zip(PUBLISHED["dlrm_sizes"].rows, ("t15", "t3", "t0"), strict=True):
        categorical = PRESETS[f"criteo_{shape}_synthetic"].categorical
        weights = WIDTH * sum(feature.cardinality for feature in categorical)
        sample = sum(np.dtype(feature.dtype).itemsize for feature in tf_raw_spec(categorical).features.values())
        here = f"{4 * weights / GIB:.1f}", f"{weights / 1e9:.1f}B", f"{1100 * 65536 * sample / GIB:.1f}"
        rows.append([published[0], *(cell for pair in zip(published[1:], bold(here), strict=True) for cell in pair)])
    return Table(rows, "nothing: these sizes follow from the cardinalities, and nothing is scaled.")


def dlrm_accuracy(measure: Measure, sizes: Sizes) -> Table:
    stability, learning = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("stability", "learning"))
    rows = PUBLISHED["dlrm_accuracy"].rows
    for ranks in ("1 rank", "2 ranks"):
        plain, amp = (stability["summary"][f"{precision}, {ranks}"]["mean"] for precision in ("float32", "amp"))
        what = f"T15 x 0.01, planted clicks, best {stability['best_auc']:.4f}"
        rows.append(bold([f"2 cores, {ranks}", what, "1k in all", f"{plain:.4f}", f"{amp:.4f}", "", ""]))
    auc, best = learning["models"]["DLRM"]["auc"], learning["models"]["the teacher itself"]["auc"]
    minutes = learning["models"]["DLRM"]["seconds"] / 60
    what = f"T15 x 0.01, planted clicks, best {best:.4f}"
    rows.append(bold(["2 cores, 1 rank", what, "2k", f"{auc:.4f}", "", f"{minutes:.2f}", ""]))
    return Table(
        rows,
        "the data (planted clicks with a known best AUC; 1 M samples, in the last row 4 M, instead of 4.2 G), the "
        "tables (a hundredth of the rows, width 16), Adagrad instead of SGD, bfloat16 as mixed precision. The AUCs of "
        "1 M samples are means of 16 seeds. Compare the columns of a row, not the rows.",
    )


def dlrm_training(measure: Measure, sizes: Sizes) -> Table:
    rows = PUBLISHED["dlrm_training"].rows
    for name, shape, scale, ranks in (
        ("small (T15)", "t15", 1, 1),
        ("large (T3)", "t3", 0.1, 2),
        ("extra large (T0)", "t0", 0.02, 2),
    ):
        plain, amp = (_throughput(measure, sizes, shape=shape, scale=scale, ranks=ranks, amp=amp) for amp in (0, 1))
        model = name if scale == 1 else f"{name} x {scale}"
        batch = f"{8 // ranks}k"
        rows.append(bold([_cores(ranks), model, batch, short(plain), short(amp), f"{amp / plain:.2f}"]))
    return Table(
        rows,
        "the processor, the rows of the two larger models, batch 8,192 instead of 65,536, synthetic ids by the "
        "published power law, bfloat16 as mixed precision, no --xla.",
    )


def dlrm_cpu(measure: Measure, sizes: Sizes) -> Table:
    plain = _throughput(measure, sizes, shape="t0", scale=0.02, ranks=2, amp=0)
    rows = [*PUBLISHED["dlrm_cpu"].rows, bold([f"{_cores(2)}, rows x 0.02", short(plain), f"{plain / 2:,.0f}"])]
    return Table(
        rows,
        "the processor (2 virtual cores of an EPYC, Zen 5, with AVX-512) and a fiftieth of the rows: 8.4 GiB of "
        "tables, far beyond the caches too. The published run has 64 times the cores, on two sockets, where memory may "
        "limit.",
    )


def _throughput(measure: Measure, sizes: Sizes, *, shape: str, scale: float, ranks: int, amp: int) -> float:
    """Samples per second of a training on synthetic data."""
    data = f"""python -m criteo_prep synthesize --preset criteo_{shape}_synthetic --scale {scale * sizes.scale:g}
        --num_samples 1000 --dst data"""
    command = f"""{DLRM} --valid_batch_size 8192 --max_steps {sizes.steps} --print_freq 4 --evals_per_epoch 0
        --log_path log.json {"--amp" * amp}"""
    return measure(command, data=data, ranks=ranks)["throughput"]


def dlrm_inference(measure: Measure, sizes: Sizes) -> Table:
    data = f"""python -m criteo_prep synthesize --preset criteo_t15_synthetic --scale {0.1 * sizes.scale:g}
        --num_samples 1000 --dst data && python -m {DLRM} --valid_batch_size 8192 --max_steps 1 --evals_per_epoch 0
        --save_checkpoint_path checkpoint"""
    command = f"""{DLRM} --valid_batch_size 2048 --mode inference --restore_checkpoint_path checkpoint
        --max_steps {10 * sizes.steps} --log_path log.json"""
    runs = [measure(command + flag, data=data) for flag in ("", " --amp")]
    cells = [short(run["mean_inference_throughput"]) for run in runs]
    cells += [f"{1e3 * run['mean_inference_latency']:.1f}" for run in runs]
    rows = [*PUBLISHED["dlrm_inference"].rows, bold([_cores(1), "small (T15) x 0.1", "2048", *cells])]
    return Table(rows, "the processor, a tenth of the rows, synthetic ids by the published power law.")


def zoo_sizes(measure: Measure, sizes: Sizes) -> Table:
    rows = []
    for name, tables, gib in PUBLISHED["zoo_sizes"].rows:
        model = MODELS[name].tables
        here = bold([str(len(model)), f"{4 * sum(table.num_elements for table in model) / GIB:.1f}"])
        rows.append([name, tables, here[0], gib, here[1]])
    return Table(rows, "nothing: `--plan_only` places all six models, and nothing is scaled.")


def zoo(measure: Measure, sizes: Sizes) -> Table:
    rows = []
    for model, scale, batch, all_ranks in (
        ("tiny", 1, 65536, (1, 2)),
        ("small", 0.1, 16384, (1, 2)),
        ("medium", 0.01, 4096, (1, 2)),
        ("large", 0.003, 1024, (1,)),
        ("jumbo", 0.001, 512, (1,)),
    ):
        rows += [
            [model, f"{gpus} A100", "1", *_speeds(model, PUBLISHED_BATCH_SIZE, ms)]
            for gpus, ms in PUBLISHED_MS[model].items()
        ]
        for ranks in all_ranks:
            command = f"""dlrm_tf2.synthetic_models --cpu --model {model} --scale {scale * sizes.scale:g} --batch_size
                {batch} --optimizer adagrad --num_steps {sizes.steps // 2} --num_data_batches 4 --log_path log.json"""
            ms = measure(command, ranks=ranks)["mean_ms"]
            rows.append(bold([model, _cores(ranks), f"{scale:g}", *_speeds(model, batch, ms)]))
    return Table(
        rows,
        "the processor, and for all models but `tiny` the rows and the batch. A lookup is one id of one sample, so the "
        "last column compares models and batches. 4 batches in turn here, 1 in the published runs.",
    )


def _speeds(model: str, batch: int, ms: float) -> list[str]:
    """The cells batch, ms, samples/s and million lookups/s."""
    rate = 1e3 * batch / ms
    lookups = rate * sum(MODELS[model].hotness.values())
    return [f"{batch}", f"{ms:,.1f}", short(rate), f"{lookups / 1e6:,.1f}"]


def sok(measure: Measure, sizes: Sizes) -> Table:
    data = f"""python -m criteo_prep synthesize --preset criteo_t15_synthetic --scale {0.01 * sizes.scale:g}
        --num_samples {sizes.samples} --labels teacher --seed 1 --dst data && python -m criteo_prep transcribe
        --src_dataset_path data --dst_dataset_path records --dst_dataset_type record_binary && for split in train test;
        do python -m criteo_prep split-bin records/$split.bin DATA/$split; done"""
    steps = sizes.samples // 2048
    command = f"""dlrm_tf2.sok_benchmark --cpu --data_dir DATA --global_batch_size 2048 --custom_interact --optimizer
        adagrad --lr 0.02 --warmup_steps {steps // 10} --decay_start_step {steps // 2} --decay_steps
        {steps - steps // 2 + 1} --seed 1 --log_path log.json"""
    rows = PUBLISHED["sok"].rows
    for exit_flag, criterion in (("--eval_in_last", "1 epoch"), ("--auc_threshold 0.76", "AUC > 0.76")):
        for flag, amp, compress in (("--compress", "no", "yes"), ("--amp", "yes", "no")):
            run = measure(f"{command} {exit_flag} {flag}", data=data, ranks=2)
            training_s = run["total_s"] - run["evaluating_s"]
            minutes = [f"{seconds / 60:.2f}" for seconds in (training_s, run["evaluating_s"], run["total_s"])]
            speed = [f"{1e3 * training_s / run['steps']:.0f}", short(run["steps"] * 2048 / training_s)]
            missed = " (not reached)" if "AUC" in criterion and run["auc"] <= 0.76 else ""
            rows.append(bold([_cores(2), "2048", criterion + missed, amp, compress, *minutes, *speed]))
    return Table(
        rows,
        f"the processor; {sizes.samples:,} samples with planted clicks (best AUC 0.80) instead of 4.2 G; a hundredth "
        "of T15's rows instead of 82 GB; Adagrad, because SGD at rate 24 needs the published 64,000 steps; no --xla.",
    )


def torchrec(measure: Measure, sizes: Sizes) -> Table:
    rows, steps = PUBLISHED["torchrec"].rows, sizes.samples // 2048
    for configuration, flag, shape, scale in (
        ("MLPerf", "mlperf", "mlperf_40m", 0.01),
        ("MLPerfx2", "mlperfx2", "mlperf_80m", 0.01),
        ("Full Size", "full", "torchrec_full", 0.005),
    ):
        data = f"""python -m criteo_prep synthesize --preset {shape} --scale {scale * sizes.scale:g} --num_samples
            {sizes.samples} --num_test_samples {sizes.samples // 5} --labels teacher --seed 1 --dst data && python -m
            criteo_prep transcribe --src_dataset_path data --dst_dataset_path npy --dst_dataset_type criteo_npy && for
            part in labels dense sparse; do mv npy/train/day_0_$part.npy day_0_$part.npy; mv npy/test/day_0_$part.npy
            day_1_$part.npy; done"""
        command = f"""dlrm_tf2.torchrec_example --cpu --in_memory_binary_criteo_path . --preset {flag} --scale
            {scale * sizes.scale:g} --batch_size 1024 --adagrad --learning_rate 0.02 --lr_warmup_steps {steps // 10}
            --lr_decay_start {steps // 2} --lr_decay_steps {steps - steps // 2} --seed 1 --log_path log.json"""
        run = measure(command, data=data, ranks=2)
        gib = 4 * WIDTH * scale * sum(feature.cardinality for feature in PRESETS[shape].categorical) / GIB
        aucs = [f"{run[name]:.4f}" for name in ("auc", "final_auc")]
        speed = [short(2048e3 / run["mean_step_time_ms"]), f"{run['total_s'] - run['evaluating_s']:.0f} s"]
        rows.append(bold([f"{configuration} x {scale}", _cores(2), f"{gib:.2f}", "1024", *aucs, *speed]))
    return Table(
        rows,
        f"the processor; {sizes.samples:,} samples with planted clicks (best AUC 0.80) instead of 4.2 G; the rows of "
        "the tables; Adagrad with a warm-up and a falling rate, because SGD diverges here at a rate of 1.",
    )


def bold(cells) -> list[str]:
    """The cells of a row that was measured here, in bold."""
    return [f"**{cell}**" if cell else "" for cell in cells]


def short(number: float) -> str:
    """A number of samples per second as the published tables write it: 12.3M, 17.7k, 138."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def _cores(ranks: int) -> str:
    return f"2 cores, {ranks} {'rank' if ranks == 1 else 'ranks'}"


TABLES: dict[str, Callable[[Measure, Sizes], Table]] = {
    make.__name__: make
    for make in (dlrm_sizes, dlrm_accuracy, dlrm_training, dlrm_cpu, dlrm_inference, zoo_sizes, zoo, sok, torchrec)
}
