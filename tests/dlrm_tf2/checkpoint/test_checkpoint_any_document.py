"""Every reader of a manifest with any content returns or raises CheckpointError, and never another exception."""

import contextlib
import dataclasses
import json

import pytest
from support.any_json import cuts, deep, dump, mutations
from support.checkpoint_case import PLANS, TABLES, Variable, dense_of, weights_of

from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError, manifest, save_checkpoint
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.export.__main__ import ExportError, export
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.training.resume import RESUMED_KEYS, Resumption

MODEL = ModelConfig(
    ("cat_0", "été", "tiny"), (11, 7, 1), num_numerical=13, embedding_dim=6, bottom_mlp_dims=(4, 6), top_mlp_dims=(1,)
)
DOCUMENT = {
    "model": MODEL.document(),
    "step": 41,
    "optimizer_state_began": 0,
    "config": dataclasses.asdict(TrainConfig(dataset_path="data", seed=3)),
    "data": {"epoch": 0, "sample": 12, "seed": 3, "num_samples": 100, "shuffle": "none", "shuffle_window": None},
    "run": {"id": "abc", "finished": False, "first_step": 1, "first_position": [0, 0], "best_auc": 0.5,
            "evaluated": True, "skipped_steps": 0, "loss_scaling": {"scale": 16.0, "good_steps": 3}},
}  # fmt: skip


@pytest.fixture
def saved(array_embedding, tmp_path):
    embedding = array_embedding(TABLES, PLANS["1 cut"], 0, weights=weights_of())
    dense = dense_of(0) | {"bottom_mlp/0/bias.accumulator": Variable([0.5])}
    save_checkpoint(tmp_path / "saved", SingleProcess(), dense=dense, embedding=embedding, document=DOCUMENT)
    return tmp_path / "saved"


def read_all(path, array_embedding):
    """Asks every reader of a manifest; each may refuse it."""
    refusals = 0
    embedding = array_embedding(TABLES, PLANS["1 cut"], 0)
    config = TrainConfig(dataset_path="data", seed=3, save_checkpoint_path=str(path))
    for read in (
        lambda: checkpoint.load_checkpoint(path, SingleProcess(), dense=dense_of(1), embedding=embedding),
        lambda: checkpoint.check_document(path, checkpoint.read_document(path), ("model", *RESUMED_KEYS)),
        lambda: Resumption.find(config, SingleProcess()),
        lambda: checkpoint.check_destination(path),
    ):
        try:
            read()
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 2000, str(error)
            refusals += 1
    checkpoint.of_other_runs(path.with_name("another"), "run")
    return refusals


def test_random_values_in_a_manifest_with_a_right_checksum(saved, array_embedding):
    content = json.loads((saved / "manifest.json").read_text())
    del content["crc32"]
    refusals = 0
    for changed in mutations(content, 150):
        with contextlib.suppress(AttributeError):
            changed["crc32"] = manifest._content_checksum(changed)
        (saved / "manifest.json").write_bytes(dump(changed))
        refusals += read_all(saved, array_embedding) > 0
    assert refusals > 75


def test_random_values_in_the_document(saved, array_embedding):
    content = json.loads((saved / "manifest.json").read_text())
    del content["crc32"]
    for changed in mutations(content["document"], 150, seed=1):
        content["document"] = changed
        (saved / "manifest.json").write_bytes(dump(content | {"crc32": manifest._content_checksum(content)}))
        read_all(saved, array_embedding)


def test_random_models_are_exported_or_refused(saved, tmp_path):
    content = json.loads((saved / "manifest.json").read_text())
    del content["crc32"]
    for number, changed in enumerate(mutations(MODEL.document(), 60, seed=2)):
        content["document"]["model"] = changed
        (saved / "manifest.json").write_bytes(dump(content | {"crc32": manifest._content_checksum(content)}))
        with contextlib.suppress(ExportError, CheckpointError):
            export(saved, tmp_path / f"published_{number}", "published")


def test_a_manifest_that_is_cut_or_has_a_bit_flipped(saved, array_embedding):
    content = (saved / "manifest.json").read_bytes()
    for changed in cuts(content, 80):
        (saved / "manifest.json").write_bytes(changed)
        assert read_all(saved, array_embedding) > 0


@pytest.mark.parametrize(
    "content", [deep(), '{"kind": "dlrm checkpoint", "document": ' + deep() + "}", "1" * 5000, "null"]
)
def test_a_manifest_that_is_deep_or_something_else(saved, array_embedding, content):
    (saved / "manifest.json").write_text(content)
    assert read_all(saved, array_embedding) > 0
