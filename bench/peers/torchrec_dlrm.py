"""TorchRec's DLRM on the CPU, for bench/torchrec_peer.py --peer: needs torch, torchrec, fbgemm-gpu-cpu, torchmetrics.

    python bench/peers/torchrec_dlrm.py --in_memory_binary_criteo_path DIR --batch_size 2048 ...

The flags have the names of TorchRec's example. The model is made of TorchRec's own parts: its in-memory reader of .npy
files, its DLRM, and DistributedModelParallel over gloo with one process, which replaces the tables by FBGEMM's fused
tables. Their optimizer works inside of the backward pass. With --unfused the model keeps PyTorch's tables, and one
optimizer of torch.optim updates all weights, the tables by sparse gradients. Trains one epoch, scores the validation
and the test split, and prints one line of JSON.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.optim import _apply_optimizer_in_backward as apply_in_backward
from torchmetrics.functional.classification import binary_auroc
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
from torchrec.datasets.criteo import DEFAULT_CAT_NAMES, DEFAULT_INT_NAMES, InMemoryBinaryCriteoIterDataPipe
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.models.dlrm import DLRM, DLRMTrain
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

CPU = torch.device("cpu")


def main() -> None:
    arguments = flags()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(arguments.seed)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    model, optimizer = made(arguments)
    found = train(arguments, model, optimizer)
    found |= {f"{split}_auroc": score(arguments, model, split) for split in ("val", "test")}
    versions = {name: version(name) for name in ("torch", "torchrec", "fbgemm-gpu-cpu")}
    print(json.dumps(found | {"versions": versions}))


def flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--in_memory_binary_criteo_path", type=Path, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--test_batch_size", type=int, required=True)
    for split in ("train", "val", "test"):
        parser.add_argument(f"--limit_{split}_batches", type=int)
    parser.add_argument("--num_embeddings_per_feature", type=numbers, required=True)
    parser.add_argument("--embedding_dim", type=int, required=True)
    parser.add_argument("--dense_arch_layer_sizes", type=numbers, required=True)
    parser.add_argument("--over_arch_layer_sizes", type=numbers, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--adagrad", action="store_true")
    parser.add_argument("--unfused", action="store_true")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=0, help="first steps that are not timed")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def made(arguments: argparse.Namespace) -> tuple[torch.nn.Module, CombinedOptimizer | torch.optim.Optimizer]:
    """The model, and the optimizer of all its parts."""
    tables = [
        EmbeddingBagConfig(
            name=f"t_{name}", embedding_dim=arguments.embedding_dim, num_embeddings=rows, feature_names=[name]
        )
        for name, rows in zip(DEFAULT_CAT_NAMES, arguments.num_embeddings_per_feature, strict=True)
    ]
    collection = EmbeddingBagCollection(tables, device=CPU if arguments.unfused else torch.device("meta"))
    dlrm = DLRM(
        collection,
        dense_in_features=len(DEFAULT_INT_NAMES),
        dense_arch_layer_sizes=arguments.dense_arch_layer_sizes,
        over_arch_layer_sizes=arguments.over_arch_layer_sizes,
        dense_device=CPU,
    )
    kind = torch.optim.Adagrad if arguments.adagrad else torch.optim.SGD
    settings = {"lr": arguments.learning_rate} | ({"eps": 1e-8} if arguments.adagrad else {})
    if arguments.unfused:
        for bag in collection.embedding_bags.values():
            bag.sparse = True
        return DLRMTrain(dlrm), kind(dlrm.parameters(), **settings)
    apply_in_backward(kind, dlrm.sparse_arch.parameters(), dict(settings))
    model = DistributedModelParallel(DLRMTrain(dlrm), device=CPU)
    dense = dict(in_backward_optimizer_filter(model.named_parameters()))
    optimizer = KeyedOptimizerWrapper(dense, lambda parameters: kind(parameters, **settings))
    return model, CombinedOptimizer([model.fused_optimizer, optimizer])


def batches(arguments: argparse.Namespace, split: str) -> Iterator:
    """The batches of train (the first day), val or test (the halves of the second), by TorchRec's reader."""
    day = 0 if split == "train" else 1
    parts = ("dense", "sparse", "labels")
    reader = InMemoryBinaryCriteoIterDataPipe(
        split,
        *([str(arguments.in_memory_binary_criteo_path / f"day_{day}_{part}.npy")] for part in parts),
        batch_size=arguments.batch_size if split == "train" else arguments.test_batch_size,
        rank=0,
        world_size=1,
        hashes=arguments.num_embeddings_per_feature,
    )
    limit = getattr(arguments, f"limit_{split}_batches")
    for number, batch in enumerate(reader):
        if number == limit:
            return
        yield batch


def train(arguments: argparse.Namespace, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """One epoch. The mean time of a step after the warm-up, and the part of it that reading takes."""
    reader, step_s, reading_s = batches(arguments, "train"), [], []
    while True:
        start = time.perf_counter()
        batch = next(reader, None)
        if batch is None:
            break
        reading_s.append(time.perf_counter() - start)
        optimizer.zero_grad()
        loss, _ = model(batch)
        loss.backward()
        optimizer.step()
        step_s.append(time.perf_counter() - start)
    steps, reading = step_s[arguments.warmup :], reading_s[arguments.warmup :]
    return {
        "samples_per_s": arguments.batch_size / statistics.fmean(steps),
        "steps": len(step_s),
        "data_wait": sum(reading) / sum(steps),
    }


def score(arguments: argparse.Namespace, model: torch.nn.Module, split: str) -> float:
    """The exact AUROC of a split."""
    model.eval()
    logits, labels = [], []
    with torch.no_grad():
        for batch in batches(arguments, split):
            _, (_, logit, label) = model(batch)
            logits.append(logit)
            labels.append(label)
    model.train()
    return float(binary_auroc(torch.sigmoid(torch.cat(logits)), torch.cat(labels).int()))


if __name__ == "__main__":
    main()
