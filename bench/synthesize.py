"""How fast `criteo-prep synthesize` writes a dataset into the page cache, checksums included.

    python bench/synthesize.py [--samples 5000000] [--rounds 3]

Each kind in turn, with one thread and with one thread per core; medians. A multi-hot sample has 214 ids, so these kinds
get a tenth of the samples.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.synthesize import Synthesis, synthesize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "synthesize.json"))
    arguments = parser.parse_args()
    kinds = {}
    for workers in sorted({1, len(os.sched_getaffinity(0))}):
        kinds |= {(name, workers): request for name, request in requests(arguments.samples, workers).items()}
    rates = {kind: [] for kind in kinds}
    folder = Path(tempfile.mkdtemp(prefix="bench_synthesize_", dir=arguments.folder))
    try:
        for number in range(arguments.rounds + 1):  # the first one compiles, and does not count
            for kind, request in kinds.items():
                start = time.perf_counter()
                synthesize(request, folder / "set", quiet=True)
                seconds = time.perf_counter() - start
                shutil.rmtree(folder / "set")
                if number:
                    rates[kind].append((request.num_samples + request.test_rows) / seconds / 1e6)
    finally:
        shutil.rmtree(folder)
    print(f"{'kind':28} {'threads':>7} {'M rows/s':>9} {'lowest':>8} {'highest':>8}")
    for (name, workers), values in rates.items():
        print(f"{name:28} {workers:7} {statistics.median(values):9.2f} {min(values):8.2f} {max(values):8.2f}")
    document = {
        "million_rows_per_s": [{"kind": n, "threads": w, "rounds": values} for (n, w), values in rates.items()],
    }
    write_result(arguments.json, document)


def requests(samples: int, workers: int) -> dict[str, Synthesis]:
    fewer = max(1, samples // 10)
    return {
        "tf_raw, random labels": Synthesis("criteo_t15", samples, 1, workers=workers),
        "tf_raw, teacher": Synthesis("criteo_t15", samples, 1, labels="teacher", workers=workers),
        "tf_raw, multi-hot, teacher": Synthesis("criteo_t15_multi_hot", fewer, 1, labels="teacher", workers=workers),
        "criteo_tsv, teacher": Synthesis(
            "criteo_t15", samples // 5, samples // 50, labels="teacher", layout="criteo_tsv", workers=workers
        ),
    }


if __name__ == "__main__":
    main()
