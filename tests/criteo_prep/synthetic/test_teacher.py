"""The planted click model, and the best scores in the manifest."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from criteo_prep.feature_spec import Feature, FeatureSpecError, tf_raw_spec
from criteo_prep.synthetic.columns import MISSING_LEVEL, NUM_LEVELS, Columns
from criteo_prep.synthetic.generator import Reader, write_samples
from criteo_prep.synthetic.labels import Labels, draw_labels
from criteo_prep.synthetic.power_law import draw, stream_key
from criteo_prep.synthetic.teacher import Teacher
from criteo_prep.synthetic.truth import Truth

TABLES = (Feature("a", "int32", 50_000, 1, 1.2), Feature("b", "int32", 3, 1, 1.45), Feature("c", "int32", 700, 1, 0.0),
          Feature("d", "int32", 40, 1, 1.45))  # fmt: skip
SPEC = tf_raw_spec(TABLES, num_numerical=2)
VALUES = np.stack([np.arange(NUM_LEVELS) / NUM_LEVELS, (np.arange(NUM_LEVELS) / NUM_LEVELS) ** 2])


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.batches = []

    def write(self, batch):
        self.batches.append(batch)

    @property
    def label(self):
        return np.concatenate([batch.label for batch in self.batches])

    def ids(self, name):
        return np.concatenate([batch.categorical[name].values for batch in self.batches])


def near_normal(key, counter):
    bits = int(draw(key, counter))
    return (sum(bits >> shift & 0xFFFF for shift in (0, 16, 32, 48)) - 2 * 65535) / 65536 * math.sqrt(3)


def importance(seed, names):
    order = sorted(names, key=lambda name: stream_key(seed, "importance", name))
    return {name: 0.8 ** order.index(name) for name in names}


def slow_groups(seed, ids, levels):
    """The three sums of the formula for one row, in plain Python, as docs/synthetic.md has it."""
    names = [table.name for table in TABLES]
    weights = importance(seed, names)
    numbers = importance(seed, ["numerical 0", "numerical 1"])

    def damped(purpose, name, row):
        number = near_normal(stream_key(seed, purpose, name), row)
        return number if row < 0 else number / math.sqrt(1 + row / 50)

    numerical = 0.0
    for column, level in enumerate(levels):
        a, b, c = (near_normal(stream_key(seed, "effect", f"numerical {column}"), i) for i in range(3))
        t = (VALUES[column][level % NUM_LEVELS] - VALUES[column].mean()) / VALUES[column].std()
        effect = c if level == MISSING_LEVEL else a * t + b * (t * t - 1) / 2
        numerical += numbers[f"numerical {column}"] * effect
    categorical = sum(weights[name] * damped("effect", name, row) for name, row in zip(names, ids, strict=True))
    ordered = sorted(names, key=lambda name: -weights[name])
    row_of = dict(zip(names, ids, strict=True))
    pairs = sum(damped("factor", f, row_of[f]) * damped("factor", g, row_of[g])
                for f, g in zip(ordered[0::2], ordered[1::2], strict=True))  # fmt: skip
    return numerical, categorical, pairs


def test_the_logit_is_the_documented_formula():
    teacher = Teacher(Columns(TABLES, 2, seed=9), VALUES)
    ids = [[0, 3, 49_999, -1, 5000], [0, 1, 2, -1, 1], [5, 699, 0, 1, -1], [39, 0, 1, 2, 3]]
    levels = np.array([[0, 2047], [3, MISSING_LEVEL], [1000, 1000], [MISSING_LEVEL, 7], [512, 0]], np.uint16)
    rows = [slow_groups(9, [column[i] for column in ids], levels[i].tolist()) for i in range(5)]
    expected = [teacher._bias + float(np.dot(teacher._scales, row)) for row in rows]
    found = teacher.logits([np.array(column, np.int32) for column in ids], levels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("base_rate, signal", [(0.25, 1.4), (0.033, 1.4), (0.5, 0.0), (0.25, 3.0)])
def test_base_rate_and_signal(base_rate, signal):
    columns = Columns(TABLES, 2, seed=4)
    teacher = Teacher(columns, VALUES, base_rate=base_rate, signal=signal)
    ids = [columns.ids("train", i, start=0, stop=60_000) for i in range(len(TABLES))]
    logits = teacher.logits(ids, columns.levels("train", 0, 60_000)).astype(np.float64)
    assert (1 / (1 + np.exp(-logits))).mean() == pytest.approx(base_rate, rel=0.05)
    assert logits.std() == pytest.approx(signal, rel=0.1, abs=1e-6)


@pytest.mark.parametrize("arguments, message", [
    ({"base_rate": 0.0}, "base_rate 0.0: must be between 0 and 1"), ({"base_rate": 1.0}, "base_rate 1.0"),
    ({"signal": -1.0}, "signal -1.0: must be at least 0"), ({"signal": float("nan")}, "signal nan")])  # fmt: skip
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Teacher(Columns(TABLES, 2, seed=4), VALUES, **arguments)


def test_best_auc_and_log_loss_are_those_of_the_true_probabilities():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, 20_000).astype(np.float32)
    logits[::3] = np.float32(0.5)  # ties
    truth = Truth()
    labels = draw_labels(logits, len(logits), key=stream_key(1, "labels"), start=0, truth=truth)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert truth.best_auc == pytest.approx(roc_auc_score(labels, probability), abs=2e-5)
    assert truth.best_log_loss == pytest.approx(log_loss(labels, probability), abs=1e-7)
    assert (truth.num_samples, truth.num_clicks) == (20_000, labels.sum())
    assert labels.mean() == pytest.approx(probability.mean(), abs=0.01)


def test_truth_by_hand():
    truth = Truth()
    counts = np.zeros_like(truth._counts)
    counts[0, [10, 20]] = 2, 1
    counts[1, [10, 30]] = 1, 1
    truth.add(counts, 5 * 2**30)
    # Positives in bins 10 and 30; of 2 * 3 pairs, bin 30 wins 3 and bin 10 ties with 2: (3 + 2 / 2) / 6.
    assert truth.best_auc == pytest.approx(4 / 6)
    assert truth.best_log_loss == pytest.approx(1.0)
    assert Truth().document() == {"num_samples": 0, "num_clicks": 0, "best_auc": None, "best_log_loss": None}


def test_fair_coins_have_nothing_to_learn():
    kept = Kept()
    truth = write_samples(Reader(SPEC, "train", num_samples=30_000, seed=1), kept)
    assert truth.best_auc == 0.5
    assert truth.best_log_loss == pytest.approx(math.log(2))
    assert kept.label.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("labels", ["random", "teacher"])
def test_batch_size_and_workers_do_not_change_the_samples(labels):
    whole = Reader(SPEC, "train", num_samples=5000, seed=7, labels=Labels(labels)).read(0, 5000)
    for batch_size, workers in ((1, 3), (999, 1), (5000, 2), (70_000, 4)):
        if batch_size == 1:
            reader = Reader(SPEC, "train", num_samples=50, seed=7, labels=Labels(labels))
        else:
            reader = Reader(SPEC, "train", num_samples=5000, seed=7, labels=Labels(labels))
        batches = list(reader.batches(batch_size, workers))
        rows = reader.num_samples
        assert np.concatenate([batch.label for batch in batches]).tolist() == whole.label[:rows].tolist()
        numerical = np.concatenate([batch.numerical for batch in batches])
        assert numerical.tobytes() == whole.numerical[:rows].tobytes()
        for table in TABLES:
            ids = np.concatenate([batch.categorical[table.name].values for batch in batches])
            assert ids.tobytes() == whole.categorical[table.name].values[:rows].tobytes()
        assert reader.truth.num_samples == rows


def test_seeds_and_splits_differ_but_a_seed_repeats():
    def first(split, seed):
        batch = Reader(SPEC, split, num_samples=500, seed=seed, labels=Labels("teacher")).read(0, 500)
        return batch.categorical["a"].values.tolist(), batch.label.tolist(), batch.numerical.tolist()

    assert first("train", 1) == first("train", 1)
    for other in (first("test", 1), first("train", 2)):
        assert all(mine != theirs for mine, theirs in zip(first("train", 1), other, strict=True))


def test_numericals_are_uniform_below_one_and_exact_in_float16():
    numerical = Reader(SPEC, "train", num_samples=40_000, seed=1).read(0, 40_000).numerical
    assert numerical.dtype == np.float16
    assert numerical.min() >= 0 and numerical.max() < 1
    deciles = np.histogram(numerical.astype(np.float64), 10, (0, 1))[0] / numerical.size
    np.testing.assert_allclose(deciles, 0.1, atol=0.005)


def test_a_model_can_learn_it_and_pairs_need_more_than_a_sum():
    """A logistic regression on one-hot ids finds much of the signal, and with the pairs as features it finds more."""
    spec = tf_raw_spec([Feature(f"f{i}", "int32", 20, 1, 0.8) for i in range(4)], num_numerical=0)
    reader = Reader(spec, "train", num_samples=60_000, seed=3, labels=Labels("teacher", signal=2.0))
    batch = next(iter(reader.batches(60_000)))
    ids = np.stack([column.values for column in batch.categorical.values()], axis=1).astype(np.int64)
    pairs = np.stack([ids[:, f] * 20 + ids[:, g] for f, g in reader._teacher.pairs], axis=1)

    def auc(columns):
        one_hot = OneHotEncoder().fit_transform(columns)
        model = LogisticRegression(max_iter=100).fit(one_hot[:45_000], batch.label[:45_000])
        return roc_auc_score(batch.label[45_000:], model.decision_function(one_hot[45_000:]))

    alone, with_pairs = auc(ids), auc(np.concatenate([ids, pairs], axis=1))
    best = reader.truth.best_auc
    assert 0.7 < alone < with_pairs < best + 0.01
    assert with_pairs > best - 0.02
    assert with_pairs > alone + 0.01


@pytest.mark.parametrize("change, message", [
    ({"alpha": None}, "a: has no alpha"), ({"alpha": -1.0}, "a: alpha -1.0: must be at least 0"),
    ({"ragged": True}, "a: is ragged, but all synthetic samples have the same number of ids")])  # fmt: skip
def test_a_feature_that_cannot_be_drawn_is_named(change, message):
    spec = tf_raw_spec([dataclasses.replace(TABLES[0], **change)])
    with pytest.raises(FeatureSpecError, match=message):
        Reader(spec, "train", num_samples=10, seed=1)


def test_misuse_of_the_reader():
    with pytest.raises(ValueError, match="labels 'coins': must be one of random, teacher"):
        Reader(SPEC, "train", num_samples=10, seed=1, labels=Labels("coins"))
    with pytest.raises(ValueError, match="num_samples -1: must not be negative"):
        Reader(SPEC, "train", num_samples=-1, seed=1)
    with pytest.raises(ValueError, match="workers 0: must be at least 1"):
        next(Reader(SPEC, "train", num_samples=10, seed=1).batches(workers=0))


def test_a_writer_that_fails_ends_the_generation():
    class Full:
        def write(self, batch):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_samples(Reader(SPEC, "train", num_samples=10**6, seed=1), Full())


def test_a_dataset_without_numericals_or_without_pairs_has_its_signal_elsewhere():
    for spec in (tf_raw_spec(TABLES[:1], num_numerical=0), tf_raw_spec([], num_numerical=3)):
        reader = Reader(spec, "train", num_samples=20_000, seed=5, labels=Labels("teacher"))
        truth = write_samples(reader, Kept())
        assert 0.7 < truth.best_auc < 0.9
        assert truth.num_clicks / truth.num_samples == pytest.approx(0.25, abs=0.02)


def test_the_effect_of_several_ids_is_their_sum_by_the_root_of_how_many():
    tables = (dataclasses.replace(TABLES[0], hotness=4), TABLES[1])
    columns, single = Columns(tables, 2, seed=9), Columns(TABLES[:2], 2, seed=9)
    several, one = Teacher(columns, VALUES), Teacher(single, VALUES)
    ids, levels = np.array([[7, 0, 49_999, 3], [1, 1, 1, 1]], np.int32), np.zeros((8, 2), np.uint16)
    other = np.zeros(8, np.int32)
    _, each, pairs_each = one._groups([ids.reshape(-1), other], levels)
    _, found, pairs = several._groups([ids.reshape(-1), other[:2]], levels[:2])
    b = one._effects[1].of(other[:1], 1)[0]  # what column b adds to each
    np.testing.assert_allclose(found - b, (each - b).reshape(2, 4).sum(axis=1) / 2, rtol=1e-5)
    np.testing.assert_allclose(pairs, pairs_each.reshape(2, 4).sum(axis=1) / 2, rtol=1e-5)


def test_several_ids_a_sample_are_the_draws_of_one_stream_in_turn():
    hot = tf_raw_spec([dataclasses.replace(TABLES[0], hotness=3), *TABLES[1:]], num_numerical=2)
    batch = Reader(hot, "train", num_samples=100, seed=7, labels=Labels("teacher")).read(20, 90)
    assert batch.categorical["a"].row_lengths.tolist() == [3] * 70
    flat = Reader(SPEC, "train", num_samples=300, seed=7).read(60, 270)
    np.testing.assert_array_equal(batch.categorical["a"].values, flat.categorical["a"].values)


@pytest.mark.parametrize("labels", ["random", "teacher"])
def test_a_reader_of_some_features_has_the_same_ones_as_a_reader_of_all(labels):
    whole = Reader(SPEC, "train", num_samples=500, seed=7, labels=Labels(labels)).read(100, 400)
    some = Reader(SPEC, "train", num_samples=500, seed=7, labels=Labels(labels), features=["c", "label", "a"]).read(
        100, 400
    )
    assert list(some.categorical) == ["a", "c"] and some.numerical is None
    assert some.label.tolist() == whole.label.tolist()
    assert some.categorical["c"].values.tolist() == whole.categorical["c"].values.tolist()
    numbers = Reader(SPEC, "train", num_samples=500, seed=7, labels=Labels(labels), features=["num_0", "num_1"]).read(
        100, 400
    )
    assert numbers.label is None and not numbers.categorical
    assert numbers.numerical.tolist() == whole.numerical.tolist()
