"""dynamicemb's two benchmarks as data: sizes, published figures, and flags that are refused. No TensorFlow.

Source: NVIDIA/recsys-examples, corelib/dynamicemb/benchmark (tables: commit 6f7281aa, one H100; collection: 8 H100).
"""

from collections.abc import Mapping
from typing import NamedTuple

ROWS_UNIT = 1 << 20  # of --num_embeddings_per_feature of `tables`
NUM_FEATURES, HOTNESS = 26, 10
PUBLISHED_RANKS = 8  # of `collection`

# Rows of the 26 tables of `collection`: the values that occur three times or more in a feature of Criteo's logs.
COLLECTION_ROWS = (
    45833188, 36746, 17245, 7413, 20243, 3, 7114, 1441, 62, 29275261, 1572176, 345138, 10, 2209, 11267, 128, 4, 974, 14,
    48937457, 11316796, 40094537, 452104, 12606, 104, 35,
)  # fmt: skip


class PublishedTables(NamedTuple):
    """A row of the published table of `tables`: its setting, and milliseconds.

    Attributes:
      caching, table_version: of dynamicemb. Without caching the torchrec table is in host memory that the GPU reads.
      batch_size, rows, optimizer: the setting.
      torchrec, dynamicemb: eval, forward, backward (train - forward), train.
    """

    caching: str
    table_version: int
    batch_size: int
    rows: int
    optimizer: str
    torchrec: tuple[str, ...]
    dynamicemb: tuple[str, ...]


_TABLES_MS = """
    yes 2   65536  8388608 sgd   0.2908  0.2897  0.2335  0.5232  0.2395  0.2604  1.0207  1.2811
    no  2   65536  8388608 sgd   0.4966  0.4965  0.4949  0.9914  0.1687  0.2971  0.4552  0.7523
    no  1   65536  8388608 sgd   0.4967  0.4971  0.4917  0.9888  0.0692  0.1957  0.4099  0.6056
    yes 2   65536  8388608 adam  0.2943  0.2943  0.9045  1.1989  0.2397  0.2605  1.2278  1.4883
    no  2   65536  8388608 adam  0.4994  0.5003  1.1593  1.6596  0.1673  0.2949  0.4750  0.7698
    no  1   65536  8388608 adam  0.5001  0.4998  1.1651  1.6650  0.0691  0.2008  0.4333  0.6342
    yes 2   65536 67108864 sgd   0.2685  0.2689  0.3429  0.6118  0.2420  0.2653  1.1501  1.4153
    no  2   65536 67108864 sgd   0.5125  0.5124  0.5370  1.0494  1.1706  1.2602  1.3229  2.5830
    no  1   65536 67108864 sgd   0.5125  0.5125  0.5409  1.0534  1.0534  1.1528  1.2851  2.4379
    yes 2   65536 67108864 adam  0.2677  0.2681  1.0812  1.3493  0.2430  0.2643  1.3368  1.6011
    no  2   65536 67108864 adam  0.5154  0.5152  1.2836  1.7988  1.2187  1.3053  1.4750  2.7803
    no  1   65536 67108864 adam  0.5155  0.5155  1.2864  1.8018  1.0910  1.1998  1.4233  2.6231
    yes 2 1048576  8388608 sgd   2.6006  2.6006  0.7010  3.3016  1.0290  1.0483  3.6262  4.6745
    no  2 1048576  8388608 sgd   7.5234  7.5251  3.6853 11.2103  0.9815  1.2196  1.6465  2.8661
    no  1 1048576  8388608 sgd   7.5269  7.5277  3.6901 11.2178  0.6010  0.8442  1.6158  2.4600
    yes 2 1048576  8388608 adam  2.6029  2.6029  7.1274  9.7304  1.0307  1.0503  4.3007  5.3510
    no  2 1048576  8388608 adam  7.5282  7.5296 10.2938 17.8234  0.9841  1.2214  1.8516  3.0730
    no  1 1048576  8388608 adam  7.5275  7.5280 10.2635 17.7914  0.6015  0.8576  1.8129  2.6705
    yes 2 1048576 67108864 sgd   2.7751  2.7762  0.7709  3.5471  3.1945  3.2183  7.4745 10.6928
    no  2 1048576 67108864 sgd   7.8065  7.8077  4.4502 12.2580 16.4718 11.8067 12.4042 24.2109
    no  1 1048576 67108864 sgd   7.8107  7.8114  4.4515 12.2629 15.8456 11.3021 12.3373 23.6394
    yes 2 1048576 67108864 adam  2.7659  2.7680  8.6259 11.3939  3.3010  3.3228  8.1585 11.4812
    no  2 1048576 67108864 adam  7.8090  7.8114 12.5489 20.3603 16.9604 12.1736 13.1217 25.2953
    no  1 1048576 67108864 adam  7.8099  7.8106 12.5173 20.3279 16.3222 11.6924 13.0711 24.7636
"""


def _published_tables() -> tuple[PublishedTables, ...]:
    found = []
    for caching, version, batch, rows, optimizer, *ms in map(str.split, _TABLES_MS.strip().splitlines()):
        found.append(
            PublishedTables(
                caching,
                int(version),
                batch_size=int(batch),
                rows=int(rows),
                optimizer=optimizer,
                torchrec=tuple(ms[:4]),
                dynamicemb=tuple(ms[4:]),
            )
        )
    return tuple(found)


PUBLISHED_TABLES = _published_tables()
# (dedup, dynamic) -> milliseconds per iteration, with a batch of 65536 on 8 ranks.
PUBLISHED_COLLECTION_MS: Mapping[tuple[bool, bool], float] = {
    (True, False): 14.88, (True, True): 21.56, (False, False): 23.99, (False, True): 28.47,
}  # fmt: skip

_NO_DECAY = "no optimizer of tables has weight decay, and the published runs have 0. Leave it out."
_ONE_MEMORY = "all rows are in one memory, without a cache in front of it. Leave it out."
# Verb -> its published flags that this program refuses -> the reason, and what to use instead.
REFUSED: Mapping[str, Mapping[str, str]] = {
    "tables": {
        "hbm_for_embeddings": "all rows are in one memory. Leave it out: a table that does not fit is refused.",
        "gpu_ratio": _ONE_MEMORY,
        "caching": _ONE_MEMORY,
        "cache_metrics": _ONE_MEMORY + " The hit rate is always printed.",
        "table_version": "there is one implementation of dynamic tables. Leave it out.",
        "use_index_dedup": "on one rank no key travels. Use it with `collection`.",
        "weight_decay": _NO_DECAY,
    },
    "collection": {
        "epochs": "does nothing in the published program either. Use --num_iterations.",
        "fwd_output_precision": "vectors are returned in the type in which they travel. Use --fwd_a2a_precision.",
        "allreduce_precision": "no variable is replicated, so nothing is summed over the ranks. Leave it out.",
        "use_torch_opt": "the update of rows is always part of the step. Leave it out.",
        "platform": "names a GPU to the published planner, and tables are in host memory here. Leave it out.",
        "weight_decay": _NO_DECAY,
    },
}
