"""The native op in TensorFlow: values, gradient, contract, XLA around it, training with it, and its choice."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numpy_interaction import DTYPES, assert_near, every_pattern, forward, gradient, typed
from support.small_dataset import write_dataset
from test_ops_kernels import call_forward, call_gradient

from dlrm_tf2 import ops
from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model import interaction
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.ops.dot_interaction import dot_interaction
from dlrm_tf2.ops.first_columns import with_first_columns
from dlrm_tf2.runtime import instruction_sets, process
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.trainer import Trainer

native = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")


@native
@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 70), st.integers(1, 35), st.integers(1, 70), st.integers(0, 2**31))
def test_forward_and_gradient_equal_float64(dtype, batch, count, width, seed):
    rng = np.random.default_rng(seed)
    features = tf.cast(rng.normal(size=(batch, count, width)), dtype)
    exact = tf.cast(features, tf.float64).numpy()
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = dot_interaction(features)
    expected = forward(exact)
    assert output.dtype == dtype
    assert_near(tf.cast(output, tf.float64).numpy(), expected, dtype.name, width)
    upstream = tf.cast(rng.normal(size=expected.shape), dtype)
    found = tape.gradient(output, features, output_gradients=upstream)
    wanted = gradient(exact, tf.cast(upstream, tf.float64).numpy())
    assert_near(tf.cast(found, tf.float64).numpy(), wanted, dtype.name, count)


@native
def test_same_bits_on_every_run_and_as_the_reference_has_them_in_row_zero():
    features = tf.random.stateless_normal([500, 27, 128], [1, 2])
    runs = {dot_interaction(features).numpy().tobytes() for _ in range(5)}
    assert len(runs) == 1
    np.testing.assert_array_equal(dot_interaction(features)[:, :128], features[:, 0])


@pytest.fixture
def use_instruction_set():
    """ops.use_instruction_set; afterwards the native op uses the same instruction set as before."""
    before = ops.instruction_set()
    yield ops.use_instruction_set
    ops.use_instruction_set(before)


@native
@pytest.mark.parametrize("name", instruction_sets.of_processor())
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_op_uses_the_instruction_set_in_its_threads(dtype, name, use_instruction_set):
    use_instruction_set(name)
    assert ops.instruction_set() == name
    features, upstream = (tf.random.stateless_normal([300, *shape], [1, 2]) for shape in ([27, 128], [480]))
    features, upstream = tf.cast(features, dtype), tf.cast(upstream, dtype)
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = dot_interaction(features)
    found = tape.gradient(output, features, output_gradients=upstream)
    number = instruction_sets.NAMES.index(name)
    memory, up = (typed(bits_of(tensor), dtype) for tensor in (features, upstream))
    np.testing.assert_array_equal(bits_of(output), call_forward(memory, dtype, number).bits())
    np.testing.assert_array_equal(bits_of(found), call_gradient(memory, up, dtype, number).bits())


def bits_of(tensor: tf.Tensor) -> np.ndarray:
    """The values as unsigned integers."""
    values = tensor.numpy()
    return values.view(f"uint{8 * values.itemsize}")


@native
def test_an_instruction_set_that_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr(instruction_sets, "NAMES", ("scalar",) * 9 + ("avx1024",))
    with pytest.raises(ValueError, match="cannot use avx1024: this processor does not have it"):
        ops.use_instruction_set("avx1024")


@native
def test_first_columns_are_written_and_the_others_stay():
    matrix, first = np.arange(12, dtype=np.float32).reshape(3, 4), np.full((3, 2), 7, np.float32)
    wanted = [[7, 7, 2, 3], [7, 7, 6, 7], [7, 7, 10, 11]]
    given = tf.constant(matrix)
    np.testing.assert_array_equal(with_first_columns(given, first), wanted)
    np.testing.assert_array_equal(given, matrix)  # somebody else reads it: a copy was written
    in_a_graph = tf.function(lambda first: with_first_columns(tf.reshape(tf.range(12.0), [3, 4]) + 0, first))
    np.testing.assert_array_equal(in_a_graph(first), wanted)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most as many columns"):
        with_first_columns(given, np.zeros((3, 5), np.float32))


@native
def test_the_gradient_of_first_columns():
    matrix, first = tf.zeros([2, 3]), tf.ones([2, 1])
    with tf.GradientTape() as tape:
        tape.watch([matrix, first])
        loss = tf.reduce_sum(with_first_columns(matrix, first) * [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    by_matrix, by_first = tape.gradient(loss, [matrix, first])
    np.testing.assert_array_equal(by_first, [[1], [4]])
    np.testing.assert_array_equal(by_matrix[:, 1:], [[2, 3], [5, 6]])


@pytest.mark.parametrize("compute", [interaction.dot_interaction, pytest.param(dot_interaction, marks=native)],
                         ids=["tensorflow", "native"])  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_keeps_its_bits_in_tensorflows_threads(dtype, compute):
    """TensorFlow's threads take denormals for zero in every sum."""
    bits = every_pattern(dtype).reshape(-1, 1, 16)
    features, upstream = as_tensor(~bits, dtype), as_tensor(bits[:, 0], dtype)
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = compute(features)
    np.testing.assert_array_equal(bits_of(output), ~bits[:, 0])
    np.testing.assert_array_equal(bits_of(tape.gradient(output, features, output_gradients=upstream)), bits)
    pairs = compute(as_tensor(np.concatenate([bits, ~bits], axis=1), dtype))
    np.testing.assert_array_equal(bits_of(pairs)[:, :16], bits[:, 0])


def as_tensor(bits: np.ndarray, dtype: str) -> tf.Tensor:
    return tf.constant(np.ascontiguousarray(bits).view(tf.as_dtype(dtype).as_numpy_dtype))


@native
def test_large_outputs_stay_what_they_are_while_others_take_and_free_memory():
    features = [tf.random.stateless_normal([1200 + 40 * i, 27, 128], [i, 2]) for i in range(3)]  # outputs over 2 MiB
    kept = [dot_interaction(values) for values in features]
    copies = [output.numpy().copy() for output in kept]
    for _ in range(3):
        for values, copy in zip(features, copies, strict=True):
            np.testing.assert_array_equal(dot_interaction(values), copy)
    for output, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(output, copy)


@native
@pytest.mark.parametrize(
    "shape, dtype, complaint",
    [
        ([4, 5], tf.float32, r"features: its shape is \(4, 5\), expected rank 3"),
        ([1, 2, 3, 4], tf.float32, "features: .*expected rank 3"),
        ([4, 0, 5], tf.float32, r"features: its shape is \[4,0,5\], expected at least one vector"),
        ([4, 5, 0], tf.float32, "features: .*expected at least one vector of at least one value"),
        ([4, 5, 6], tf.float64, "features: its dtype is float64, expected one of float32, float16, bfloat16"),
        ([4, 5, 6], tf.int32, "features: its dtype is int32"),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused_at_graph_building(shape, dtype, complaint):
    with pytest.raises(ValueError, match=complaint):
        tf.function(dot_interaction).get_concrete_function(tf.TensorSpec(shape, dtype))


@native
def test_upstream_must_fit_features_at_graph_building_and_when_running():
    op = ops.library().dlrm_dot_interaction_gradient
    with pytest.raises(ValueError, match=r"upstream: its shape is \[4,479\], expected \[4,480\]"):
        tf.function(op).get_concrete_function(tf.TensorSpec([4, 27, 128]), tf.TensorSpec([4, 479]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"upstream: its shape is \[3,480\], expected \[4,480\]"):
        op(features=tf.zeros([4, 27, 128]), upstream=tf.zeros([3, 480]))


@native
def test_shapes_known_late_are_checked_when_running():
    op = ops.library().dlrm_dot_interaction
    unknown = tf.function(lambda x: op(features=x), input_signature=[tf.TensorSpec(None)])
    assert unknown(tf.ones([2, 3, 4])).shape == (2, 8)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"features: its shape is \[2,3\]"):
        unknown(tf.ones([2, 3]))
    batches = tf.function(dot_interaction).get_concrete_function(tf.TensorSpec([None, 27, 128]))
    assert batches.output_shapes.as_list() == [None, 480]


@native
def test_gradient_of_the_gradient_is_refused():
    features = tf.ones([2, 3, 4])
    with tf.GradientTape() as outer:
        outer.watch(features)
        with tf.GradientTape() as inner:
            inner.watch(features)
            output = dot_interaction(features)
        first = inner.gradient(output, features)
    with pytest.raises(LookupError, match="no gradient of its gradient. Use --interaction_op tensorflow"):
        outer.gradient(first, features)


def train(root, spec, comm, chosen, xla=False, steps=50):
    """Losses of `steps` steps."""
    log_path = root / f"log_{chosen.name}_{xla}_{comm.size}_{comm.rank}.json"
    config = TrainConfig(
        dataset_path=str(root), embedding_dim=16, bottom_mlp_dims=(12, 16), top_mlp_dims=(10, 1), batch_size=61, seed=5,
        learning_rate=0.3, warmup_steps=0, print_freq=1, max_steps=steps, evals_per_epoch=0, xla=xla,
        log_path=str(log_path),
    )  # fmt: skip
    shape = ModelConfig.of(config, spec)
    plan = make_plan(shape.tables, comm.size)
    settings = ComputeSettings(xla=xla, interaction=chosen)
    model = Dlrm(shape, plan, comm=comm, seed=config.seed, settings=settings)
    log = RunLog(str(log_path), enabled=True)
    Trainer(config, spec, model=model, log=log).train()
    log.close()
    return [entry["loss"] for entry in map(json.loads, log_path.read_text().splitlines()) if "loss" in entry]


@native
def test_training_has_the_same_losses_on_one_rank_with_and_without_xla(tmp_path):
    spec = write_dataset(tmp_path)
    wanted = train(tmp_path, spec, SingleProcess(), interaction.TENSORFLOW)
    assert len(wanted) == 50 and np.mean(wanted[-10:]) < np.mean(wanted[:10])
    np.testing.assert_allclose(train(tmp_path, spec, SingleProcess(), interaction.NATIVE), wanted, rtol=1e-5)
    # With XLA the native op stands between two compiled blocks.
    np.testing.assert_allclose(train(tmp_path, spec, SingleProcess(), interaction.NATIVE, xla=True), wanted, rtol=1e-5)


@native
def test_training_has_the_same_losses_on_two_ranks(tmp_path, run_ranks):
    spec = write_dataset(tmp_path)
    wanted = train(tmp_path, spec, SingleProcess(), interaction.TENSORFLOW)
    for losses in run_ranks(2, lambda comm: train(tmp_path, spec, comm, interaction.NATIVE)):
        if isinstance(losses, BaseException):
            raise losses
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)


@native
def test_the_native_op_stays_outside_of_the_compiled_blocks(tmp_path):
    spec = write_dataset(tmp_path)
    config = TrainConfig(dataset_path=str(tmp_path), embedding_dim=8, bottom_mlp_dims=(8,), top_mlp_dims=(1,))
    shape = ModelConfig.of(config, spec)

    @tf.function
    def step(model, numerical, vectors):
        return model._dense(numerical, vectors)

    for chosen, ops_outside in ((interaction.NATIVE, 1), (interaction.TENSORFLOW, 0)):
        settings = ComputeSettings(xla=True, interaction=chosen)
        model = Dlrm(shape, make_plan(shape.tables, 1), comm=SingleProcess(), seed=1, settings=settings)
        arguments = tf.TensorSpec([6, 13]), tf.TensorSpec([6, 5 * 8])
        kinds = [node.op for node in step.get_concrete_function(model, *arguments).graph.as_graph_def().node]
        assert kinds.count("DlrmDotInteraction") == ops_outside
        compiled = [kind for kind in kinds if "PartitionedCall" in kind]
        assert len(compiled) == (2 if chosen is interaction.NATIVE else 1)


def test_choice(monkeypatch):
    monkeypatch.setattr(ops, "why_unavailable", lambda: None)
    monkeypatch.setattr(ops, "why_no_cuda", lambda: "it was built without CUDA")
    monkeypatch.setattr(ops, "instruction_set", lambda: "avx2")
    line = "interaction: the native op on the CPU (avx2)"
    assert interaction.choose_op("auto", "cpu") == (interaction.NATIVE_ON_CPU, line)
    assert interaction.choose_op("native", "cpu")[1] == "interaction: the native op on the CPU (avx2), as asked"
    assert interaction.choose_op("tensorflow", "cpu")[0] is interaction.TENSORFLOW
    chosen, line = interaction.choose_op("auto", "gpu")
    assert chosen is interaction.TENSORFLOW and "built without CUDA" in line
    with pytest.raises(ValueError, match="--interaction_op native: .*without CUDA"):
        interaction.choose_op("native", "gpu")
    monkeypatch.setattr(ops, "why_unavailable", lambda: "no compiler was there")
    assert interaction.choose_op("auto", "cpu") == (
        interaction.TENSORFLOW,
        "interaction: TensorFlow's ops; no compiler was there",
    )
    with pytest.raises(ValueError, match="no compiler was there. Build it, or use --interaction_op auto"):
        interaction.choose_op("native", "cpu")


@pytest.mark.parametrize(
    "flags, asked",
    [
        ({}, "auto"),
        ({"interaction_op": "native"}, "native"),
        ({"interaction": "dot_custom_cuda"}, "auto"),
        ({"interaction": "dot_tensorflow"}, "tensorflow"),
        ({"interaction": "dot_custom_cuda", "interaction_op": "native"}, "native"),
    ],
)
def test_published_spellings(flags, asked):
    assert TrainConfig(dataset_path="somewhere", **flags).requested_interaction_op == asked


@pytest.mark.parametrize("spelling, op", [("dot_tensorflow", "native"), ("dot_custom_cuda", "tensorflow")])
def test_contradicting_spellings_are_refused(spelling, op):
    with pytest.raises(ConfigError, match=f"--interaction {spelling} contradicts --interaction_op {op}"):
        TrainConfig(dataset_path="somewhere", interaction=spelling, interaction_op=op)


def test_a_library_for_another_tensorflow_is_refused(tmp_path):
    assert "was not built" in ops.refusal(tmp_path, "2.18.1")
    (tmp_path / "libdlrm_ops.so").write_bytes(b"not a library")
    (tmp_path / "built_for.txt").write_text("2.17.0\n")
    refusal = ops.refusal(tmp_path, "2.18.1")
    assert "built for TensorFlow 2.17.0, this is 2.18.1; build it again" in refusal
    (tmp_path / "built_for.txt").write_text("2.18.1\n")
    assert ops.refusal(tmp_path, "2.18.1") is None


def test_a_library_that_does_not_load_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "libdlrm_ops.so").write_bytes(b"not a library")
    (tmp_path / "built_for.txt").write_text(tf.__version__)
    monkeypatch.setattr(ops, "LIBRARY_FOLDER", tmp_path)
    module, why = ops._load.__wrapped__()
    assert module is None and "does not load" in why


@native
def test_a_library_from_older_sources_is_no_error(monkeypatch):
    monkeypatch.setattr(ops, "_loaded_library", lambda: object())
    module, why = ops._load.__wrapped__()
    assert module is None and "built from older sources; build it again: python" in why


@native
def test_a_library_that_is_loaded_uses_the_instruction_set_that_is_forced(monkeypatch, use_instruction_set):
    monkeypatch.setattr(process, "force_instruction_set", lambda: "scalar")
    ops._load.__wrapped__()
    assert ops.instruction_set() == "scalar"
