"""The published figures that bench/published.py prints next to the figures of this project."""

from typing import NamedTuple

DLRM = "NVIDIA DeepLearningExamples, TensorFlow2/Recommendation/DLRM, README"
ZOO = "NVIDIA distributed-embeddings, examples/benchmarks/synthetic_models, README"
SOK = "NVIDIA HugeCTR, sparse_operation_kit/documents/tutorials/DLRM_Benchmark, README"
TORCHREC = "facebookresearch/dlrm, torchrec_dlrm, README"


class Published(NamedTuple):
    """A published table.

    Attributes:
      title: what the table is about.
      source: where it was published.
      columns: names of the columns, divided by |.
      lines: the published rows, divided in the same way; empty where another module has the figures.
    """

    title: str
    source: str
    columns: str
    lines: str = ""

    @property
    def rows(self) -> list[list[str]]:
        return [cells(line) for line in self.lines.strip().splitlines()]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


PUBLISHED = {
    "dlrm_sizes": Published(
        "Sizes of DLRM's datasets and models",
        DLRM,
        "dataset | tables, GiB | here | parameters | here | 72 M samples, GiB | here",
        """
        synthetic T15 | 15.6 | 4.2B  | 6
        synthetic T3  | 84.9 | 22.8B | 6
        synthetic T0  | 421  | 113B  | 6
        """,
    ),
    "dlrm_accuracy": Published(
        "Accuracy of DLRM",
        DLRM,
        "on | model | batch of each | AUC, float32 (TF32) | AUC, mixed precision | min, float32 (TF32) "
        "| min, mixed precision",
        """
        1 A100       | small (T15)      | 64k | 0.8025 | 0.8025 | 26.75  | 16.27
        8 A100       | large (T3)       | 8k  | 0.8027 | 0.8026 | 8.77   | 6.57
        8 A100       | extra large (T0) | 8k  | 0.8026 | 0.8026 | 10.47  | 9.08
        1 V100       | small (T15)      | 64k | 0.8027 | 0.8025 | 109.63 | 34.83
        8 V100       | large (T3)       | 8k  | 0.8028 | 0.8026 | 26.01  | 13.73
        1 V100 (DGX-2)  | small (T15)      | 64k | 0.8026 | 0.8026 | 105.13 | 33.37
        8 V100 (DGX-2)  | large (T3)       | 8k  | 0.8027 | 0.8027 | 21.21  | 11.43
        16 V100 (DGX-2) | large (T3)       | 4k  | 0.8025 | 0.8026 | 15.52  | 10.88
        """,
    ),
    "dlrm_training": Published(
        "Training throughput of DLRM",
        DLRM,
        "on | model | batch of each | samples/s, float32 (TF32) | samples/s, mixed precision | speedup",
        """
        1 A100       | small (T15)      | 64k | 2.84M  | 4.55M | 1.60
        8 A100       | large (T3)       | 8k  | 10.9M  | 13.8M | 1.27
        8 A100       | extra large (T0) | 8k  | 9.76M  | 11.5M | 1.17
        1 V100       | small (T15)      | 64k | 0.663M | 2.23M | 3.37
        8 V100       | large (T3)       | 8k  | 3.13M  | 6.31M | 2.02
        1 V100 (DGX-2)  | small (T15)      | 64k | 0.698M | 2.44M | 3.49
        8 V100 (DGX-2)  | large (T3)       | 8k  | 3.79M  | 7.82M | 2.06
        16 V100 (DGX-2) | large (T3)       | 4k  | 6.43M  | 10.5M | 1.64
        """,
    ),
    "dlrm_cpu": Published(
        "The extra large DLRM on a CPU",
        DLRM,
        "on | samples/s | samples/s of a core",
        """
        2 x EPYC 7742 (128 cores)                      | 17.7k | 138
        1 A100 and 2 x EPYC 7742 (large tables on CPU) | 768k  |
        8 A100                                         | 11.5M |
        """,
    ),
    "dlrm_inference": Published(
        "Inference of DLRM",
        DLRM,
        "on | model | batch | samples/s, float32 (TF32) | samples/s, mixed precision | latency, float32 (TF32), ms "
        "| latency, mixed precision, ms",
        """
        1 A100      | small (T15) | 2048 | 1.38M  | 1.48M  | 1.49 | 1.38
        1 V100      | small (T15) | 2048 | 0.871M | 0.951M | 2.35 | 2.15
        1 V100 (DGX-2) | small (T15) | 2048 | 1.15M  | 1.37M  | 1.78 | 1.50
        """,
    ),
    "zoo_sizes": Published(
        "Sizes of the synthetic models",
        ZOO,
        "model | tables | here | GiB | here",
        """
        tiny     | 55   | 4.2
        small    | 107  | 26.3
        medium   | 311  | 206.2
        large    | 612  | 773.8
        jumbo    | 1022 | 3109.5
        colossal | 2002 | 22327.4
        """,
    ),
    "zoo": Published(
        "A step of the synthetic models, Adagrad",
        ZOO,
        "model | on | rows times | batch | ms | samples/s | million lookups/s",
    ),
    "sok": Published(
        "DLRM in the sparse operation kit",
        SOK,
        "on | batch | exit criterion | amp | compress | training, min | evaluating, min | total, min | ms | samples/s",
        """
        8 A100 | 65536 | 1 epoch      | no  | yes | 5.93  | 0.09 | 6.02  | 5.55  | 12.08M
        8 A100 | 65536 | 1 epoch      | yes | no  | 5.06  | 0.07 | 5.13  | 4.74  | 14.51M
        8 A100 | 55296 | AUC > 0.8025 | no  | yes | 5.23  | 1.44 | 6.67  | 4.87  | 11.66M
        8 A100 | 55296 | AUC > 0.8025 | yes | no  | 4.99  | 1.26 | 6.25  | 4.64  | 12.50M
        8 V100 | 65536 | 1 epoch      | no  | yes | 17.52 | 0.19 | 17.71 | 16.42 | 4.02M
        8 V100 | 65536 | 1 epoch      | yes | no  | 10.20 | 0.15 | 10.35 | 9.56  | 6.99M
        8 V100 | 55296 | AUC > 0.8025 | no  | yes | 16.45 | 3.59 | 20.04 | 14.45 | 3.85M
        8 V100 | 55296 | AUC > 0.8025 | yes | no  | 9.69  | 2.54 | 12.23 | 8.52  | 6.62M
        """,
    ),
    "torchrec": Published(
        "TorchRec's DLRM example",
        TORCHREC,
        "configuration | on | tables, GiB | batch of each | AUROC val | AUROC test | samples/s | epoch",
        """
        MLPerf    | 8 A100  | 97.36  | 8192 | 0.7737 | 0.7685 | 5.50M | 12 min 43 s
        MLPerfx2  | 16 A100 | 174.03 | 4096 | 0.7761 | 0.7706 | 2.03M | 34 min 27 s
        Full Size | 80 A100 | 420.94 | 819  | 0.7841 | 0.7787 | 0.46M | 2 h 32 min
        """,
    ),
}
