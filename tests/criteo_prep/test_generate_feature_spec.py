"""The published verb, and that published readers take what it writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.generate_feature_spec import main
from criteo_prep.synthetic.presets import T15

ROOT = Path(__file__).parents[2]


def test_content_as_published(tmp_path, capsys):
    dst = tmp_path / "new" / "spec.yaml"
    assert main(["--variant", "criteo_t3_synthetic", "--dst", str(dst)]) == 0
    assert "177,944,291 ids" in capsys.readouterr().out
    document = yaml.safe_load(dst.read_text())
    features = document["feature_spec"]
    assert features["cat_2"] == {"dtype": "int32", "cardinality": 1572176, "hotness": 1, "alpha": 1.45}
    assert document["source_spec"] is None
    names = {"categorical": [f"cat_{i}" for i in range(26)], "numerical": [f"num_{i}" for i in range(13)]}
    assert document["channel_spec"] == {**names, "label": ["label"]}
    assert features["label"] == {"dtype": "int8"}
    assert set(document) <= {"feature_spec", "channel_spec", "source_spec", "metadata"}
    spec = FeatureSpec.load(dst)
    assert [feature.name for feature in spec.categorical] == document["channel_spec"]["categorical"]


@pytest.mark.parametrize("variant", ["criteo_t15_synthetic", "criteo_t3_synthetic", "criteo_t0_synthetic", "criteo_t0"])
def test_the_published_checks_pass(tmp_path, variant):
    """Every dtype is numpy's, the channels hold each feature once, cardinalities are whole numbers."""
    assert main(["--variant", variant, "--dst", str(tmp_path / "f.yaml")]) == 0
    document = yaml.safe_load((tmp_path / "f.yaml").read_text())
    assert all(np.dtype(feature["dtype"]) for feature in document["feature_spec"].values())
    named = [name for names in document["channel_spec"].values() for name in names]
    assert sorted(named) == sorted(document["feature_spec"])
    for name in document["channel_spec"]["categorical"]:
        assert type(document["feature_spec"][name]["cardinality"]) is int


def test_default_destination_as_a_program(tmp_path):
    command = [sys.executable, "-m", "criteo_prep.generate_feature_spec", "--variant", "criteo_t15_synthetic"]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    spec = FeatureSpec.load(tmp_path / "feature_spec.yaml")
    assert [feature.cardinality for feature in spec.categorical] == list(T15)


def test_misuse(tmp_path, capsys):
    assert main(["--variant", "criteo_t15x", "--dst", str(tmp_path / "f.yaml")]) == 1
    assert "no preset 'criteo_t15x'; the presets are criteo_t15_synthetic" in capsys.readouterr().err
    for argv in (["--dst", "f.yaml"], ["--vari", "criteo_t15"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_example_spec_is_tf_raw_at_t15():
    spec = FeatureSpec.load(ROOT / "feature_spec.yaml")
    assert [feature.cardinality for feature in spec.categorical] == list(T15)
    assert spec.splits == ("train", "test")
    assert spec.path_of("train", "cat_7") == ROOT / "train" / "cat_7.bin"
    assert (spec.label.dtype, spec.numerical[0].dtype, spec.features["cat_5"].dtype) == ("bool", "float16", "int8")
    assert len(spec.numerical) == 13
