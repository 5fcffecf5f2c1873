"""Small datasets in the form of TorchRec's DLRM example: .npy files of each day, and .npz files with several ids."""

import numpy as np

ROWS = (50, 7, 400, 3, 90, *(5,) * 21)  # rows of the 26 tables


def write_day(folder, name, rows, *, seed=0, high=ROWS, dtype=np.int32, hotness=None):
    """Writes the files of a day; returns (labels [rows], dense [rows, 13], ids by feature number [rows, hotness])."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, top, (rows, (hotness or (1,) * 26)[k])) for k, top in enumerate(high)]
    dense = rng.normal(size=(rows, 13)).astype(np.float32)
    logits = dense[:, 0] + (ids[0][:, 0] % 50) / 25 - 1
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}_labels.npy", labels[:, None])
    np.save(folder / f"{name}_dense.npy", dense)
    if hotness:
        arrays = {str(k): column.astype(np.int32) for k, column in enumerate(ids)}
        np.savez(folder / f"{name}_sparse_multi_hot.npz", **arrays)
    else:
        np.save(folder / f"{name}_sparse.npy", np.concatenate(ids, axis=1).astype(dtype))
    return labels, dense, ids


def write_days(folder, sizes=(90, 110, 61), **kinds):
    """Days 0, 1, ... with these numbers of rows; the last one in int64, as the published shuffle leaves it."""
    return [
        write_day(folder, f"day_{day}", rows, seed=day, dtype=np.int64 if day == len(sizes) - 1 else np.int32, **kinds)
        for day, rows in enumerate(sizes)
    ]
