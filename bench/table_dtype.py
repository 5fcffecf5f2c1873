"""AUC on teacher data with tables in 32 and in 16 bits, with each optimizer.

    python bench/table_dtype.py [--samples 1000000] [--optimizers sgd,adam] [--seeds 1,2]

One pass over T15-shaped data with planted clicks. The two runs of an optimizer and a seed have the same samples and the
same initial weights, but for their rounding. The last column is the AUC of bfloat16 tables minus the AUC of float32.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from result_file import write_result
from training_auc import MODEL, OPTIMIZERS, auc_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.manifest import load_manifest
from criteo_prep.synthesize import Synthesis, synthesize

TYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "table_dtype.json"))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench_table_dtype_") as folder:
        request = Synthesis("criteo_t15", arguments.samples, scale=0.01, seed=1, labels="teacher")
        synthesize(request, Path(folder, "set"), quiet=True)
        best = load_manifest(Path(folder, "set"))["splits"]["test"]["best_auc"]
        print(f"best AUC that the labels allow: {best:.4f}")
        print(f"{'optimizer':16} {'seed':>4} {TYPES[0]:>10} {TYPES[1]:>10} {'apart':>9}", flush=True)
        for optimizer in arguments.optimizers.split(","):
            for seed in arguments.seeds.split(","):
                flags = [*OPTIMIZERS[optimizer], "--seed", seed]
                aucs = {
                    dtype: auc_of(Path(folder), arguments.samples, [*flags, "--table_dtype", dtype]) for dtype in TYPES
                }
                apart = aucs["bfloat16"] - aucs["float32"]
                rows.append({"optimizer": optimizer, "seed": int(seed), "auc": aucs, "difference": apart})
                print(
                    f"{optimizer:16} {seed:>4} {aucs['float32']:10.5f} {aucs['bfloat16']:10.5f} {apart:+9.5f}",
                    flush=True,
                )
    print(f"largest difference: {max(abs(row['difference']) for row in rows):.5f}")
    document = {
        "samples": arguments.samples,
        "flags": " ".join(MODEL),
        "best_auc": best,
        "rows": rows,
    }
    write_result(arguments.json, document)


if __name__ == "__main__":
    main()
