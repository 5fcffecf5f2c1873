"""The pipeline that bench/schema.py compares with: the same dataset by polars' own group_by and join.

    python bench/schema_polars.py THRESHOLD OUTPUT FILE

Scan, group_by and rank, join, write. No splits, no checksums, no checks of rows, no vocabularies; all rows in memory.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl


def main(threshold: int, output: Path, file: str) -> None:
    rows = (pl.scan_parquet(file) if file.endswith(".parquet") else pl.scan_csv(file)).collect()
    numbers = [name for name in rows.columns if name.startswith("x")]
    values = [name for name in rows.columns if name.startswith(("text", "number"))]
    (rows["clicked"] == "yes").to_numpy().tofile(output / "label.bin")
    logs = rows.select(pl.col(numbers).fill_null(0).clip(0).log1p().cast(pl.Float32))
    logs.to_numpy(order="c").astype(np.float16).tofile(output / "numerical.bin")
    for name in values:
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
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
