"""The published figures that bench/published.py prints next to the figures of this project.

PUBLISHED has the columns and the rows of each table; SOURCES says where they were published.
"""

DLRM = "NVIDIA DeepLearningExamples, TensorFlow2/Recommendation/DLRM, README"
ZOO = "NVIDIA distributed-embeddings, examples/benchmarks/synthetic_models, README"
SOK = "NVIDIA HugeCTR, sparse_operation_kit/documents/tutorials/DLRM_Benchmark, README"
TORCHREC = "facebookresearch/dlrm, torchrec_dlrm, README"

SOURCES = {
    "dlrm_sizes": DLRM,
    "dlrm_accuracy": DLRM,
    "dlrm_training": DLRM,
    "dlrm_cpu": DLRM,
    "dlrm_inference": DLRM,
    "zoo_sizes": ZOO,
    "zoo": ZOO,
    "sok": SOK,
    "torchrec": TORCHREC,
}

COLUMNS = {
    "dlrm_sizes": "dataset | tables, GiB | here | parameters | here | 72 M samples, GiB | here",
    "dlrm_accuracy": "on | model | batch of each | AUC, float32 (TF32) | AUC, mixed precision | min, float32 (TF32) "
    "| min, mixed precision",
    "dlrm_training": "on | model | batch of each | samples/s, float32 (TF32) | samples/s, mixed precision | speedup",
    "dlrm_cpu": "on | samples/s | samples/s of a core",
    "dlrm_inference": "on | model | batch | samples/s, float32 (TF32) | samples/s, mixed precision "
    "| latency, float32 (TF32), ms | latency, mixed precision, ms",
    "zoo_sizes": "model | tables | here | GiB | here",
    "zoo": "model | on | rows times | batch | ms | samples/s | million lookups/s",
    "sok": "on | batch | exit criterion | amp | compress | training, min | evaluating, min | total, min | ms "
    "| samples/s",
    "torchrec": "configuration | on | tables, GiB | batch of each | AUROC val | AUROC test | samples/s | epoch",
}

ROWS = {
    "dlrm_sizes": """
        synthetic T15 | 15.6 | 4.2B  | 6
        synthetic T3  | 84.9 | 22.8B | 6
        synthetic T0  | 421  | 113B  | 6
    """,
    "dlrm_accuracy": """
        1 A100       | small (T15)      | 64k | 0.8025 | 0.8025 | 26.75  | 16.27
        8 A100       | large (T3)       | 8k  | 0.8027 | 0.8026 | 8.77   | 6.57
        8 A100       | extra large (T0) | 8k  | 0.8026 | 0.8026 | 10.47  | 9.08
        1 V100       | small (T15)      | 64k | 0.8027 | 0.8025 | 109.63 | 34.83
        8 V100       | large (T3)       | 8k  | 0.8028 | 0.8026 | 26.01  | 13.73
        1 V100-DGX2  | small (T15)      | 64k | 0.8026 | 0.8026 | 105.13 | 33.37
        8 V100-DGX2  | large (T3)       | 8k  | 0.8027 | 0.8027 | 21.21  | 11.43
        16 V100-DGX2 | large (T3)       | 4k  | 0.8025 | 0.8026 | 15.52  | 10.88
    """,
    "dlrm_training": """
        1 A100       | small (T15)      | 64k | 2.84M  | 4.55M | 1.60
        8 A100       | large (T3)       | 8k  | 10.9M  | 13.8M | 1.27
        8 A100       | extra large (T0) | 8k  | 9.76M  | 11.5M | 1.17
        1 V100       | small (T15)      | 64k | 0.663M | 2.23M | 3.37
        8 V100       | large (T3)       | 8k  | 3.13M  | 6.31M | 2.02
        1 V100-DGX2  | small (T15)      | 64k | 0.698M | 2.44M | 3.49
        8 V100-DGX2  | large (T3)       | 8k  | 3.79M  | 7.82M | 2.06
        16 V100-DGX2 | large (T3)       | 4k  | 6.43M  | 10.5M | 1.64
    """,
    "dlrm_cpu": """
        2 x EPYC 7742 (128 cores)                      | 17.7k | 138
        1 A100 and 2 x EPYC 7742 (large tables on CPU) | 768k  |
        8 A100                                         | 11.5M |
    """,
    "dlrm_inference": """
        1 A100      | small (T15) | 2048 | 1.38M  | 1.48M  | 1.49 | 1.38
        1 V100      | small (T15) | 2048 | 0.871M | 0.951M | 2.35 | 2.15
        1 V100-DGX2 | small (T15) | 2048 | 1.15M  | 1.37M  | 1.78 | 1.50
    """,
    "zoo_sizes": """
        tiny     | 55   | 4.2
        small    | 107  | 26.3
        medium   | 311  | 206.2
        large    | 612  | 773.8
        jumbo    | 1022 | 3109.5
        colossal | 2002 | 22327.4
    """,
    "sok": """
        8 A100 | 65536 | 1 epoch      | no  | yes | 5.93  | 0.09 | 6.02  | 5.55  | 12.08M
        8 A100 | 65536 | 1 epoch      | yes | no  | 5.06  | 0.07 | 5.13  | 4.74  | 14.51M
        8 A100 | 55296 | AUC > 0.8025 | no  | yes | 5.23  | 1.44 | 6.67  | 4.87  | 11.66M
        8 A100 | 55296 | AUC > 0.8025 | yes | no  | 4.99  | 1.26 | 6.25  | 4.64  | 12.50M
        8 V100 | 65536 | 1 epoch      | no  | yes | 17.52 | 0.19 | 17.71 | 16.42 | 4.02M
        8 V100 | 65536 | 1 epoch      | yes | no  | 10.20 | 0.15 | 10.35 | 9.56  | 6.99M
        8 V100 | 55296 | AUC > 0.8025 | no  | yes | 16.45 | 3.59 | 20.04 | 14.45 | 3.85M
        8 V100 | 55296 | AUC > 0.8025 | yes | no  | 9.69  | 2.54 | 12.23 | 8.52  | 6.62M
    """,
    "torchrec": """
        MLPerf    | 8 A100  | 97.36  | 8192 | 0.7737 | 0.7685 | 5.50M | 12 min 43 s
        MLPerfx2  | 16 A100 | 174.03 | 4096 | 0.7761 | 0.7706 | 2.03M | 34 min 27 s
        Full Size | 80 A100 | 420.94 | 819  | 0.7841 | 0.7787 | 0.46M | 2 h 32 min
    """,
}


def cells(line: str) -> list[str]:
    """The cells of a line above."""
    return [cell.strip() for cell in line.split("|")]


def published_rows(table: str) -> list[list[str]]:
    """The published rows of a table."""
    return [cells(line) for line in ROWS[table].strip().splitlines()]
