"""Weight sharing: the clusters are those of k-means, and the size is what a coder reaches."""

import zlib

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Net, noise, noise_task
from tiny import make_subject
from torch import nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.cluster.shared_values import share_values
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.stored_weights import stored_weights
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import FLOAT32


def lloyd(values: np.ndarray, count: int) -> np.ndarray:
    """Return the shared value of each value: k-means as the textbook has it, by loops."""
    centroids = list(np.linspace(values.min(), values.max(), count))
    owners: list[int] = []
    while True:
        before = owners
        owners = [int(np.argmin([abs(v - c) for c in centroids])) for v in values]
        if owners == before:
            return np.array([centroids[owner] for owner in owners])
        for index in range(count):
            own = [v for v, owner in zip(values, owners, strict=True) if owner == index]
            centroids[index] = sum(own) / len(own) if own else centroids[index]


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 60), st.integers(2, 9), st.integers(0, 999))
def test_clusters_are_those_of_k_means(size: int, count: int, seed: int) -> None:
    values = noise(size, seed=seed)
    found = share_values(values, count).weights().numpy()
    np.testing.assert_allclose(found, lloyd(values.double().numpy(), count), rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 99))
def test_every_value_is_at_the_nearest_shared_one(bits: int, seed: int) -> None:
    values = noise(500, seed=seed)
    shared = share_values(values, 2**bits)
    assert 1 <= len(shared.codebook) <= 2**bits
    assert set(shared.indices.tolist()) == set(range(len(shared.codebook)))
    distances = (values[:, None] - shared.codebook).abs()
    torch.testing.assert_close((values - shared.weights()).abs(), distances.min(1).values)


def test_zeros_have_a_value_of_their_own() -> None:
    values = noise(300)
    values[::3] = 0
    found = share_values(values, 4).weights()
    assert torch.equal(found == 0, values == 0)
    assert len(found.unique()) == 4
    assert not share_values(torch.zeros(5), 4).weights().any()


def test_few_different_values_stay_what_they_are() -> None:
    values = torch.tensor([0.5, -1.25, 0.5, 3.0, 0.0])
    assert torch.equal(share_values(values, 4).weights(), values)


def test_the_entropy_is_that_of_the_counts() -> None:
    shared = share_values(torch.tensor([1.0] * 8 + [2.0] * 4 + [3.0] * 2 + [4.0] * 2), 4)
    # Shares 1/2, 1/4, 1/8, 1/8: codes of 1, 2, 3 and 3 bits.
    assert shared.entropy_bits() == pytest.approx(1.75)
    assert shared.coded_bytes() == 16 * 1.75 / 8 + 0.5 + 4 * 4
    assert share_values(torch.ones(9), 4).entropy_bits() == 0


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_the_size_is_what_a_huffman_coder_reaches(bits: int) -> None:
    shared = share_values(noise(60_000), 2**bits)
    bound = shared.entropy_bits() * len(shared.indices) / 8
    symbols = shared.indices.to(torch.uint8).numpy()
    coded = len(_huffman(symbols.tobytes()))
    # A Huffman code of single indices is within a bit of the bound, and nearer in practice.
    assert bound <= coded <= 1.05 * bound + 400
    packed = np.packbits(np.unpackbits(symbols[:, None], axis=1)[:, 8 - bits :])
    assert packed.nbytes == 60_000 * bits // 8
    assert 0.97 * bound <= len(zlib.compress(packed.tobytes(), 9)) <= packed.nbytes + 100


def _huffman(data: bytes) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(data) + coder.flush()


def test_what_the_history_states_is_what_the_graph_has(float_state: ModelState) -> None:
    state = ClusterWeights(bits=2).apply(float_state)
    found = state.history[-1].settings
    after, indices = 0.0, 0
    lines = []
    for name, weight in zip(LAYERS, stored_weights(state.graph), strict=True):
        counts = np.unique(weight.value.detach().numpy(), return_counts=True)[1]
        assert len(counts) <= 4
        entropy = -(counts / counts.sum() * np.log2(counts / counts.sum())).sum()
        after += np.ceil(entropy * counts.sum() / 8) + 4 * len(counts)
        indices += int(counts.sum())
        lines.append(f"{name}={entropy:.3f}")
    assert found["entropy_bits"] == tuple(lines)
    assert found["bytes_before"] == 4 * indices == 4 * (216 + 72 + 64 + 32 + 48)
    assert found["bytes_after"] == after
    assert state.parent is float_state.subject.module
    assert all(len(w.value.unique()) > 4 for w in stored_weights(float_state.graph))


LAYERS = ("stem", "depthwise", "pointwise", "branch", "fc")


def test_the_clustered_file_compresses_and_the_other_does_not() -> None:
    layers = nn.Linear(12, 64), nn.Linear(64, 64), nn.Linear(64, 4)
    net = nn.Sequential(nn.AvgPool2d(6), nn.Flatten(), *layers).eval()
    subject = Subject("wide", net, make_subject().task)
    state = begin(subject)
    clustered = ClusterWeights(bits=3).apply(state)
    found = clustered.history[-1].settings
    content = ArtifactBuilder(clustered).file(ORT, FLOAT32)[1]
    tensors = onnx.load_from_string(content).graph.initializer
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
    data = b"".join(w.tobytes() for w in weights if w.ndim == 2)
    dense = b"".join(p.detach().numpy().tobytes() for p in net.parameters() if p.ndim == 2)
    assert len(data) == len(dense) == found["bytes_before"]
    assert len(zlib.compress(dense, 9)) > 0.9 * len(dense)
    # Deflate sees bytes, not indices: it comes near the bound, not to it.
    bound = found["bytes_after"]
    assert isinstance(bound, int)
    assert bound < len(zlib.compress(data, 9)) < 2 * bound


def test_sparse_weights_stay_sparse_and_some_stay_whole(float_state: ModelState) -> None:
    sparse = Sparsify(pattern="2:4").apply(float_state)
    state = ClusterWeights(bits=3, keep=("fc",)).apply(sparse)
    before, after = ({w.path: w.value for w in stored_weights(s.graph)} for s in (sparse, state))
    for path, weight in after.items():
        assert torch.equal(weight == 0, before[path] == 0)
        assert torch.equal(weight, before[path]) == ("fc" in path)


def test_weights_that_two_layers_share_are_the_same_afterwards() -> None:
    inner = nn.Linear(16, 16)
    net = Net(lambda m, x: m.a(m.b(x).relu()), a=inner, b=inner).eval()
    subject = Subject("tied", net, noise_task((16,)))
    state = ModelState(subject, trace(net, (noise(2, 16),)))
    graph = ClusterWeights(bits=2).apply(state).graph
    read = [n.args[1] for n in graph.graph.nodes if str(n.target) == "aten.linear.default"]
    first, second = (get_tensor(graph, str(node.target)) for node in read)
    assert torch.equal(first, second)
    assert len(first.unique()) == 4


@pytest.mark.parametrize(
    "stage",
    [FineTune(1), Sparsify(), Equalize(), Smooth(), ClusterWeights()],
    ids=lambda stage: type(stage).__name__,
)
def test_what_would_change_shared_weights_comes_before(
    float_state: ModelState, stage: Stage
) -> None:
    with pytest.raises(BadInputError, match="the recipe needs it before cluster_weights"):
        stage.apply(ClusterWeights().apply(float_state))


def test_what_cannot_be_clustered(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="needs it before quantize_static"):
        ClusterWeights().apply(QuantizeStatic(32, 32).apply(float_state))
    with pytest.raises(BadInputError, match="no layer gets smaller"):
        ClusterWeights(bits=8).apply(float_state)
    with pytest.raises(BadInputError, match="no layer is called 'head'"):
        ClusterWeights(keep=("head",)).apply(float_state)
