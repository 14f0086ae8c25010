"""Ready and bound calls: the same answers, the same refusals, no memory shared with the caller."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.ready_calls import FEW_VALUES, MOST_SHAPES, ReadyCalls
from edgedl.runtime.runner import Runner

NAMES = [
    f"{runtime}-{precision}"
    for runtime in ("ort", "tflite")
    for precision in ("float32", "float16", "int8")
]


@pytest.fixture(params=NAMES)
def runner(compressed: CompressedModel, request: pytest.FixtureRequest) -> Iterator[Runner]:
    with Runner.open(compressed.bundle.folder, request.param) as opened:
        yield opened


def once(compressed: CompressedModel, runner: Runner, x: np.ndarray) -> np.ndarray:
    """Return what a model gives that was loaded for this call alone."""
    with LoadedModel(compressed.bundle, runner.artifact) as model:
        return model(x)[0]


def batch(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)


def test_the_second_call_of_a_shape_answers_as_the_first_of_a_fresh_model(
    compressed: CompressedModel, runner: Runner
) -> None:
    kept = []
    for seed in range(6):
        x = batch(1 + seed % 3, seed)
        before = x.copy()
        (y,) = runner(x)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(x, before)
        kept.append((y, once(compressed, runner, x)))
    # Later calls have not written into what was returned.
    for y, expected in kept:
        np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_again_and_again(
    runner: Runner, value: float, refused
) -> None:
    x = batch(2, 0)
    (expected,) = runner(x)
    wrong = x.copy()
    wrong[1, 2, 3, 4] = value
    for _ in range(3):
        with refused(BadInputError, "not finite"):
            runner(wrong)
    np.testing.assert_array_equal(runner(x)[0], expected)


def test_large_finite_values_are_taken(compressed: CompressedModel) -> None:
    # Their squares are not finite.
    x = np.full((1, 3, 12, 12), 1e25, np.float32)
    with Runner.open(compressed.bundle.folder, "ort-float32") as runner:
        for _ in range(3):
            np.testing.assert_array_equal(runner(x)[0], once(compressed, runner, x))
    assert x.size < FEW_VALUES


def test_views_lists_and_other_types_are_treated_as_before(runner: Runner, refused) -> None:
    x = batch(2, 1)
    (expected,) = runner(x)
    for _ in range(2):
        np.testing.assert_array_equal(runner(np.asfortranarray(x))[0], expected)
        np.testing.assert_array_equal(runner(np.repeat(x, 2, axis=3)[..., ::2])[0], expected)
        with refused(BadInputError, "must be float32, got float64"):
            runner(x.astype(np.float64))
        with refused(BadInputError, "takes 1 inputs, got 2"):
            runner(x, x)
        with refused(BadInputError, "takes 1 inputs, got 0"):
            runner()
        with refused(BadInputError, "must be [N, 3, 12, 12]"):
            runner(x[:, :, :, :-1])
        with refused(BadInputError, "must be [N, 3, 12, 12]"):
            runner(x[:0])


def test_calls_of_many_shapes_keep_memory_for_few(
    compressed: CompressedModel, images: np.ndarray
) -> None:
    with LoadedModel(compressed.bundle, compressed.bundle.artifact("ort-float32")) as model:
        for count in range(1, 3 * MOST_SHAPES):
            x = batch(count, count)
            np.testing.assert_array_equal(model(x)[0], model(x)[0])
        assert len(model._ready._free) == MOST_SHAPES


def test_what_takes_the_long_way_keeps_no_memory(compressed: CompressedModel) -> None:
    artifact = compressed.bundle.artifact("ort-float32")
    with LoadedModel(compressed.bundle, artifact) as model:
        for _ in range(20):
            # Their squares are not finite; pickled arrays have a type object of their own.
            model(np.full((1, 3, 12, 12), 1e25, np.float32))
            model(pickle.loads(pickle.dumps(batch(2, 0))))
        assert [len(calls) for calls in model._ready._free.values()] == [1, 1]


def test_outputs_whose_size_depends_on_values_are_not_bound(compressed: CompressedModel) -> None:
    nodes = [("Greater", "x zero", "mask", {}), ("Compress", "x mask", "y", {})]
    content = onnx_model(nodes, {"zero": np.float32(0)})
    x = TensorSpec("x", (None,), "float32")
    artifact = Artifact("own", "ort", "float32", "own.onnx", (x,), (replace(x, name="y"),), ())
    session = open_backend("ort").load(content, artifact, 1)
    ready = ReadyCalls(session, artifact, [x])
    inputs = np.array([1, -1, 2], np.float32), np.array([1, -1, -2], np.float32)
    assert ready((inputs[0],)) is None
    for _ in range(2):
        ready.prepare((inputs[0],), tuple(session.run([inputs[0]])))
    np.testing.assert_array_equal(ready((inputs[0],))[0], [1, 2])
    # The long way is taken from now on.
    for values in (inputs[1], inputs[0]):
        assert ready((values,)) is None
        ready.prepare((values,), tuple(session.run([values])))
    session.close()


def onnx_model(nodes: list[tuple[str, str, str, dict]], constants: dict[str, np.ndarray]) -> bytes:
    """Return a file from x [N] to y."""
    graph = helper.make_graph(
        [helper.make_node(kind, ins.split(), [out], **more) for kind, ins, out, more in nodes],
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def test_threads_get_the_answers_to_their_own_inputs(
    compressed: CompressedModel, runner: Runner
) -> None:
    expected = {seed: once(compressed, runner, batch(1, seed)) for seed in range(8)}

    def call(index: int) -> bool:
        seed = index % 8
        return bool(np.allclose(runner(batch(1, seed))[0], expected[seed], atol=1e-5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))


def test_a_bound_call_reads_and_writes_its_own_memory(
    compressed: CompressedModel, runner: Runner
) -> None:
    bound = runner.bind(batch(2, 0))
    (source,) = bound.inputs
    for seed in range(4):
        x = batch(2, seed)
        source[...] = x
        (y,) = bound.run()
        np.testing.assert_allclose(y, once(compressed, runner, x), atol=1e-5)


def test_bound_calls_of_several_threads_do_not_meet(
    compressed: CompressedModel, runner: Runner
) -> None:
    expected = {seed: once(compressed, runner, batch(1, seed)) for seed in range(8)}

    def work(seed: int) -> bool:
        bound = runner.bind(batch(1, 0))
        right = True
        for _ in range(50):
            bound.inputs[0][...] = batch(1, seed)
            right = right and np.allclose(bound.run()[0], expected[seed], atol=1e-5)
        return bool(right)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_on_onnx_runtime_nothing_is_copied(compressed: CompressedModel) -> None:
    with Runner.open(compressed.bundle.folder, "ort-float32") as runner:
        bound = runner.bind(batch(2, 0))
        (first,) = bound.run()
        bound.inputs[0][...] = batch(2, 1)
        (second,) = bound.run()
        assert np.shares_memory(first, second)


def test_a_bound_call_ends_with_its_model(compressed: CompressedModel, refused) -> None:
    folder = compressed.bundle.folder
    with Runner.open(folder, "ort-float32") as runner:
        bound = runner.bind(batch(2, 0))
        bound.run()
        assert runner.swap(folder, "ort-float32").result().accepted
        with refused(BadInputError, "bind again"):
            bound.run()
        again = runner.bind(batch(2, 0))
        again.run()
    with refused(BadInputError, "bind again"):
        again.run()
    with refused(BadInputError, "closed"):
        runner(batch(2, 0))


def test_a_wrong_input_is_refused_when_it_is_bound(runner: Runner, refused) -> None:
    with refused(BadInputError, "must be [N, 3, 12, 12]"):
        runner.bind(batch(2, 0)[:, :2])


@pytest.mark.slow
def test_millions_of_calls_keep_no_memory(compressed: CompressedModel) -> None:
    import psutil

    process = psutil.Process()
    x = batch(1, 0)
    with Runner.open(compressed.bundle.folder, "ort-float32") as runner:
        for _ in range(20_000):
            runner(x)
        before = process.memory_info().rss
        for _ in range(300_000):
            runner(x)
        assert process.memory_info().rss < before + 2**20
