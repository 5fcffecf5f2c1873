"""How fast training samples are read from the page cache: this project's loader, a copy of the bytes, and tf.data.

    python bench/data_loading.py [--samples 4194304] [--batch_size 65536] [--rounds 5]

One-hot T15 data in the page cache, one process. `ours` is RankData.batches, as the trainer uses it: label and
numericals as float32, and 26 columns of ids, checked, next to each other as int32. `copy` copies the bytes of the same
files from memory to memory. `tf.data` reads one FixedLengthRecordDataset a file, a batch a record, decodes and stacks;
it checks nothing. All take turns, and the table has medians.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.synthesize import Synthesis, synthesize
from criteo_prep.synthetic.presets import preset, published_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=1 << 22)
    parser.add_argument("--batch_size", type=int, default=1 << 16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "data_loading.json"))
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    samples = arguments.samples // arguments.batch_size * arguments.batch_size  # tf.data reads whole batches only
    folder = Path(tempfile.mkdtemp(prefix="bench_data_loading_", dir=arguments.folder))
    try:
        request = Synthesis("criteo_t15", samples, 1)
        synthesize(request, folder / "set", quiet=True)
        spec = FeatureSpec.load(folder / "set" / "feature_spec.yaml")
        rates = measure(ways(spec, samples, arguments.batch_size), samples, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    print(f"{'way':32} {'M samples/s':>12} {'lowest':>8} {'highest':>8}")
    for way, values in rates.items():
        print(f"{way:32} {statistics.median(values):12.2f} {min(values):8.2f} {max(values):8.2f}")
    document = {
        "samples": samples,
        "batch_size": arguments.batch_size,
        "million_samples_per_s": rates,
    }
    write_result(arguments.json, document)


def measure(ways: dict[str, Callable[[], int]], samples: int, rounds: int) -> dict[str, list[float]]:
    """Millions of samples a second of each way, in turn; a first round does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, read in ways.items():
            start = time.perf_counter()
            count = read()
            seconds = time.perf_counter() - start
            assert count == samples or "full" in name or "synthetic" in name, (name, count)
            if number:
                rates[name].append(count / seconds / 1e6)
    return rates


def ways(spec: FeatureSpec, samples: int, batch_size: int) -> dict[str, Callable[[], int]]:
    """Name -> function that reads all samples once and returns their number."""
    from dlrm_tf2.data.batches import RankData, RankShare, Reading

    names = tuple(spec.channels["categorical"])

    def ours(reading: Reading, batches: int | None = None) -> Callable[[], int]:
        shape = spec if reading.synthetic_samples is None else published_spec(preset("criteo_t15"))
        data = RankData(shape, "train", share=RankShare(global_features=names), reading=reading)

        def read() -> int:
            count = 0
            for number, batch in enumerate(data.batches(batch_size), 1):
                count += batch.global_batch
                if number == batches:
                    break
            return count

        return read

    return {
        "ours": ours(Reading()),
        "ours, --shuffle window": ours(Reading("window")),
        "ours, --shuffle full": ours(Reading("full"), batches=8),
        "ours, --dataset_type synthetic": ours(Reading(synthetic_samples=samples), batches=16),
        "copy of the bytes": copy_of_the_bytes(spec, batch_size),
        "tf.data": tf_data(spec, samples, batch_size),
    }


def files(spec: FeatureSpec) -> Iterator[tuple[Path, np.dtype, int]]:
    """(path, dtype, numbers a sample) of every file of the training split."""
    yield spec.path_of("train", spec.label.name), np.dtype(np.bool_), 1
    yield spec.path_of("train", spec.numerical[0].name), np.dtype(np.float16), len(spec.numerical)
    for feature in spec.categorical:
        yield spec.path_of("train", feature.name), np.dtype(feature.dtype), 1


def copy_of_the_bytes(spec: FeatureSpec, batch_size: int) -> Callable[[], int]:
    sources = [(np.fromfile(path, np.uint8), dtype.itemsize * width) for path, dtype, width in files(spec)]
    targets = [np.empty(size * batch_size, np.uint8) for _, size in sources]
    samples = len(sources[0][0]) // sources[0][1]

    def read() -> int:
        for start in range(0, samples, batch_size):
            for (source, size), target in zip(sources, targets, strict=True):
                part = source[start * size : (start + batch_size) * size]
                target[: len(part)] = part
        return samples

    return read


def tf_data(spec: FeatureSpec, samples: int, batch_size: int) -> Callable[[], int]:
    import tensorflow as tf

    def column(path: Path, dtype: np.dtype, width: int):
        raw = tf.data.FixedLengthRecordDataset(str(path), dtype.itemsize * width * batch_size, buffer_size=8 << 20)
        kind = tf.uint8 if dtype == np.bool_ else tf.as_dtype(dtype)
        out = tf.int32 if dtype.kind == "i" else tf.float32
        return raw.map(lambda record: tf.cast(tf.reshape(tf.io.decode_raw(record, kind), [batch_size, width]), out))

    columns = tuple(column(*file) for file in files(spec))
    batches = tf.data.Dataset.zip(columns).map(
        lambda label, numerical, *ids: (label, numerical, tf.concat(ids, axis=1)), num_parallel_calls=tf.data.AUTOTUNE
    )
    batches = batches.prefetch(tf.data.AUTOTUNE)

    def read() -> int:
        return sum(label.shape[0] for label, _, _ in batches)

    return read


if __name__ == "__main__":
    main()
