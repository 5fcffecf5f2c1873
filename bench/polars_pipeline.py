"""The pipeline that bench/preprocess.py compares with: the same dataset by straightforward polars.

    python bench/polars_pipeline.py THRESHOLD OUTPUT FILE...

Scan, hex to int, group_by and rank, join, write. No splits, no checksums, all rows in memory.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

NUMBERS, VALUES = [f"num_{i}" for i in range(13)], [f"cat_{i}" for i in range(26)]


def main(threshold: int, output: Path, files: list[str]) -> None:
    types = {"label": pl.Int8} | dict.fromkeys(NUMBERS, pl.Int64) | dict.fromkeys(VALUES, pl.String)
    rows = (
        pl.scan_csv(files, separator="\t", has_header=False, schema=types)
        .with_columns(
            (pl.col(NUMBERS).fill_null(-2).clip(-2) + 3).log().cast(pl.Float32),
            pl.col(VALUES).str.to_integer(base=16, dtype=pl.UInt32),
        )
        .collect()
    )
    rows["label"].to_numpy().astype(bool).tofile(output / "label.bin")
    rows.select(NUMBERS).to_numpy(order="c").astype(np.float16).tofile(output / "numerical.bin")
    for name in VALUES:
        ids = (
            rows.lazy()
            .select(pl.col(name).drop_nulls())
            .group_by(name)
            .len()
            .filter(pl.col("len") >= threshold)
            .sort(["len", name], descending=[True, False])
            .with_row_index("id", offset=1)
            .collect()
        )
        joined = rows.select(name).join(ids.select(name, "id"), on=name, how="left", maintain_order="left")
        kept = len(ids) + 1
        dtype = np.int8 if kept < 127 else np.int16 if kept < 32767 else np.int32
        joined["id"].fill_null(0).to_numpy().astype(dtype).tofile(output / f"{name}.bin")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
