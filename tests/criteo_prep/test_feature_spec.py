import errno
import os

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shop_spec import SHOP, load

from criteo_prep import feature_spec
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError, minimal_dtype, tf_raw_spec


def assert_published_rules(document):
    """The rules that published readers assert, written from their description alone."""
    assert set(document) <= {"feature_spec", "channel_spec", "source_spec", "metadata"}
    features, channels = document["feature_spec"], document["channel_spec"]
    for entry in features.values():
        np.dtype(entry["dtype"])
    assert set(channels) == {"categorical", "numerical", "label"}
    named = sum(channels.values(), [])
    assert len(named) == len(set(named)) and set(named) == set(features)
    assert len(channels["label"]) == 1
    assert all(type(features[name]["cardinality"]) is int for name in channels["categorical"])
    for split, chunks in (document["source_spec"] or {}).items():
        assert split in ("train", "test")
        assert sorted(name for chunk in chunks for name in chunk["features"]) == sorted(features)
        for chunk in chunks:
            assert set(chunk) == {"type", "features", "files"}
            assert chunk["type"] == "split_binary" and len(chunk["files"]) == 1 and chunk["features"]
            names = chunk["features"]
            dtypes = {features[name]["dtype"] for name in names}
            if names[0] in channels["categorical"]:
                assert len(names) == 1 and dtypes <= {"int8", "int16", "int32"}
            elif names[0] in channels["numerical"]:
                assert names == channels["numerical"] and dtypes == {"float16"}
            else:
                assert names == channels["label"] and dtypes == {"bool"}


def saved(tmp_path, spec):
    spec.save(tmp_path / "saved.yaml")
    return yaml.safe_load((tmp_path / "saved.yaml").read_text())


def test_the_published_example(tmp_path):
    spec = load(tmp_path, SHOP)
    assert spec.categorical == [Feature("store", "int8", 90), Feature("item", "int32", 5_000_000)]
    assert [feature.name for feature in spec.numerical] == ["price", "age"]
    assert spec.label == Feature("bought", "bool")
    assert spec.splits == ("train", "test")
    assert spec.path_of("test", "age") == tmp_path / "test" / "dense.bin"
    assert spec.chunk_of("train", "item") == Chunk(("item",), ("train/item.bin",))
    assert saved(tmp_path, spec) == yaml.safe_load(SHOP)
    assert_published_rules(yaml.safe_load(SHOP))


def test_published_names_with_a_suffix_and_keys_in_alphabetical_order(tmp_path):
    categorical = [Feature(f"cat_{i}.bin", "", 10 + i) for i in range(12)]
    document = saved(tmp_path, tf_raw_spec(categorical))
    assert document["source_spec"]["train"][2 + 11]["files"] == ["train/cat_11.bin"]
    spec = load(tmp_path, yaml.safe_dump(document, sort_keys=True))
    assert list(spec.features)[:3] == ["cat_0.bin", "cat_1.bin", "cat_10.bin"]
    assert [feature.cardinality for feature in spec.categorical] == [10 + i for i in range(12)]
    assert_published_rules(document)


def test_a_generated_synthetic_spec_without_sources(tmp_path):
    document = yaml.safe_load(SHOP)
    document["source_spec"] = None
    document["feature_spec"]["bought"] = {"dtype": "int8"}
    document["feature_spec"]["item"] |= {"hotness": 3, "alpha": 1.45}
    del document["metadata"]
    spec = load(tmp_path, document)
    assert spec.sources == {} and spec.splits == ()
    assert spec.categorical[1] == Feature("item", "int32", 5_000_000, 3, 1.45)
    assert saved(tmp_path, spec) == document | {"metadata": {}}


def test_a_label_may_have_a_cardinality(tmp_path):
    document = yaml.safe_load(SHOP)
    document["feature_spec"]["bought"]["cardinality"] = 2
    assert load(tmp_path, document).label.cardinality == 2


def test_the_standard_layout_by_hand(tmp_path):
    features = [Feature("cat_0", "int64", 126), Feature("cat_1", "", 40_000, 2, 1.1)]
    spec = tf_raw_spec(features, num_numerical=2, metadata={"seed": 5})
    document = saved(tmp_path, spec)
    assert document == {
        "feature_spec": {
            "cat_0": {"dtype": "int8", "cardinality": 126},
            "cat_1": {"dtype": "int32", "cardinality": 40_000, "hotness": 2, "alpha": 1.1},
            "num_0": {"dtype": "float16"},
            "num_1": {"dtype": "float16"},
            "label": {"dtype": "bool"},
        },
        "channel_spec": {"categorical": ["cat_0", "cat_1"], "numerical": ["num_0", "num_1"], "label": ["label"]},
        "source_spec": {
            split: [
                {"type": "split_binary", "features": ["num_0", "num_1"], "files": [f"{split}/numerical.bin"]},
                {"type": "split_binary", "features": ["label"], "files": [f"{split}/label.bin"]},
                {"type": "split_binary", "features": ["cat_0"], "files": [f"{split}/cat_0.bin"]},
                {"type": "split_binary", "features": ["cat_1"], "files": [f"{split}/cat_1.bin"]},
            ]
            for split in ("train", "test")
        },
        "metadata": {"seed": 5},
    }
    assert_published_rules(document)
    assert FeatureSpec.load(tmp_path / "saved.yaml").features == spec.features


def with_keys(**change):
    """The published example with keys in place of the ids of `item`."""
    document = yaml.safe_load(SHOP)
    document["feature_spec"]["item"] = {"dtype": "int64", "key": True} | change
    return document


def test_a_feature_with_keys(tmp_path):
    spec = load(tmp_path, with_keys())
    assert spec.categorical == [Feature("store", "int8", 90), Feature("item", "int64", key=True)]
    assert [feature.id_dtype for feature in spec.categorical] == ["int32", "int64"]
    assert saved(tmp_path, spec) == with_keys()
    assert tf_raw_spec([Feature("a", "", key=True)]).features["a"] == Feature("a", "int64", key=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cardinality": 5}, "item: has key: true and a cardinality; keys have none"),
        ({"dtype": "int32"}, "item: has key: true and dtype int32; keys are int64"),
        ({"key": 1}, "item: key is 1; it must be true or false"),
        ({"key": False}, "item: a categorical feature needs a cardinality"),
    ],
)
def test_keys_that_contradict_the_spec(tmp_path, change, message):
    with pytest.raises(FeatureSpecError, match=message):
        load(tmp_path, with_keys(**change))


def test_keys_where_nothing_holds_keys(tmp_path):
    document = with_keys()
    document["source_spec"]["train"] = [
        {"type": "record_binary", "features": [*document["feature_spec"]], "files": ["a"]}
    ]
    with pytest.raises(FeatureSpecError, match="'item' has key: true, and the type is 'record_binary'; keys are in"):
        load(tmp_path, document)
    document = with_keys()
    document["feature_spec"]["price"]["key"] = True
    with pytest.raises(FeatureSpecError, match="price: has key: true, but only a categorical feature holds keys"):
        load(tmp_path, document)


def test_the_validation_split_stands_in_the_metadata(tmp_path):
    spec = tf_raw_spec([Feature("a", "", 5)], splits=("train", "test", "validation"), metadata={"by": "me"})
    document = saved(tmp_path, spec)
    assert_published_rules(document)
    assert sorted(document["source_spec"]) == ["test", "train"]
    assert document["metadata"]["by"] == "me"
    [*_, last] = document["metadata"]["source_spec"]["validation"]
    assert last == {"type": "split_binary", "features": ["a"], "files": ["validation/a.bin"]}
    again = FeatureSpec.load(tmp_path / "saved.yaml")
    assert again.splits == ("train", "test", "validation")
    assert again.sources == spec.sources and again.metadata == {"by": "me"}
    assert saved(tmp_path, again) == document


characters = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="/\0")
names = st.text(characters, min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(names, st.integers(1, 2**31 - 2), st.integers(1, 9), st.none() | st.floats(0.1, 4)),
        max_size=5,
        unique_by=lambda feature: feature[0].removesuffix(".bin"),
    ),
    st.integers(0, 4),
    st.sampled_from([("train",), ("train", "test"), ("test", "validation"), ("train", "test", "validation"), ()]),
)
def test_any_spec_survives_the_file(tmp_path_factory, tables, num_numerical, splits):
    taken = {"label", "..", *(f"num_{i}" for i in range(4))}
    features = [Feature(name, "", *rest) for name, *rest in tables if name not in taken]
    spec = tf_raw_spec(features, num_numerical, splits=splits)
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    spec.save(path)
    again = FeatureSpec.load(path)
    assert (again.features, again.channels, again.sources, again.metadata) == (
        spec.features,
        spec.channels,
        spec.sources,
        spec.metadata,
    )
    assert_published_rules(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "cardinality, dtype",
    [
        (1, "int8"),
        (126, "int8"),
        (127, "int16"),
        (128, "int16"),
        (32766, "int16"),
        (32767, "int32"),
        (2147483646, "int32"),
    ],
)
def test_the_published_dtype_rule(cardinality, dtype):
    assert minimal_dtype(cardinality) == dtype


def test_cardinalities_beyond_int32():
    with pytest.raises(FeatureSpecError, match="cardinality 2147483647 is too large"):
        minimal_dtype(2147483647)
    with pytest.raises(FeatureSpecError, match="cat_3: cardinality 2147483647 is too large"):
        tf_raw_spec([Feature("cat_3", "int64", 2147483647)])
    with pytest.raises(FeatureSpecError, match="two features are named 'label' in the standard layout"):
        tf_raw_spec([Feature("label", "", 5)])


# The files of a split.


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "train").mkdir()
    for file, sample_bytes in (("dense", 4), ("y", 1), ("store", 1), ("item", 4)):
        (tmp_path / "train" / f"{file}.bin").write_bytes(bytes(7 * sample_bytes))
    return load(tmp_path, SHOP)


def test_whole_files(shop):
    assert shop.validate_files("train") == 7


def test_a_link_loop_as_a_data_file(shop, tmp_path):
    (tmp_path / "train" / "y.bin").unlink()
    (tmp_path / "train" / "y.bin").symlink_to("y.bin")
    with pytest.raises(FeatureSpecError, match="train/y.bin: is a link that leads to no file"):
        shop.validate_files("train")


def test_files_that_are_not_whole(shop, tmp_path):
    train = tmp_path / "train"
    os.truncate(train / "item.bin", 27)
    with pytest.raises(FeatureSpecError, match=r"train/item.bin: 27 bytes is not a multiple of 4 \(1 x int32\)"):
        shop.validate_files("train")
    os.truncate(train / "item.bin", 24)
    with pytest.raises(FeatureSpecError, match="train/item.bin: holds 6 samples, but train/dense.bin holds 7"):
        shop.validate_files("train")
    (train / "item.bin").unlink()
    with pytest.raises(FeatureSpecError, match="train/item.bin: there is no such file, but the feature spec"):
        shop.validate_files("train")
    (train / "item.bin").mkdir()
    with pytest.raises(FeatureSpecError, match="there is no such file"):
        shop.validate_files("train")


def test_a_link_that_leads_out_of_the_folder(shop, tmp_path):
    (tmp_path / "train" / "y.bin").unlink()
    (tmp_path / "train" / "y.bin").symlink_to("/etc/hostname")
    with pytest.raises(FeatureSpecError, match="train/y.bin: leads out of the dataset folder"):
        shop.validate_files("train")


def test_a_chunk_of_another_type_is_not_read(shop, tmp_path):
    document = yaml.safe_load(SHOP)
    document["source_spec"]["train"][0]["type"] = "csv"
    with pytest.raises(FeatureSpecError, match="dense.bin is of type 'csv'; only split_binary is read here"):
        load(tmp_path, document).validate_files("train")


# Saving.


def test_a_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    spec = load(tmp_path, SHOP)
    (tmp_path / "saved.yaml").write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_spec.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        spec.save(tmp_path / "saved.yaml")
    assert (tmp_path / "saved.yaml").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["feature_spec.yaml", "saved.yaml"]


def test_a_wrong_spec_is_not_saved(tmp_path):
    spec = load(tmp_path, SHOP)
    spec.features["store"] = Feature("store", "int8", 1000)
    with pytest.raises(FeatureSpecError, match="ids up to 999 do not fit int8"):
        spec.save(tmp_path / "saved.yaml")
    assert os.listdir(tmp_path) == ["feature_spec.yaml"]
