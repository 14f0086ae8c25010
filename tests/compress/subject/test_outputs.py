"""Whatever forward returns, its tensors come in order; what is no tensor is named."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgedl.compress.subject.outputs import as_tuple, named_outputs
from edgedl.compress.subject.unwrap import unwrap
from edgedl.runtime.errors import BadInputError

A, B = torch.zeros(1), torch.ones(1)


@dataclass
class Found:
    boxes: Tensor
    loss: Tensor | None = None
    scores: Tensor | None = None


Pair = namedtuple("Pair", "mean std")


class Named(OrderedDict[str, Any]):
    """Has attributes and keys, as results of Hugging Face's networks do."""


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (A, [""]),
        ((A, None, B), ["", ""]),
        ([A, [B, (A,)]], ["", "", ""]),
        ({"logits": A, "loss": None, "hidden": (B, B)}, ["logits", "hidden", "hidden"]),
        (Named(logits=A), ["logits"]),
        (Found(A, None, B), ["boxes", "scores"]),
        (Pair(A, B), ["mean", "std"]),
        ({"left": Found(A), "right": {"x": B}}, ["left_boxes", "right_x"]),
        ({0: A, 1: B}, ["0", "1"]),
    ],
)
def test_tensors_in_order_with_their_names(outputs: Any, names: list[str]) -> None:
    found = named_outputs(outputs)
    assert [name for name, _ in found] == names
    assert all(x is y for (_, x), y in zip(found, as_tuple(outputs), strict=True))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ((A, 0.5), r"forward's result\[1\] is a float, no tensor"),
        ({"logits": A, "cache": object()}, r"forward's result\['cache'\] is a object"),
        (Found(A, {"x": "text"}), r"forward's result\.loss\['x'\] is a str"),  # type: ignore[arg-type]
        (3, "forward's result is a int"),
        ((None, {}), "forward returns no tensor"),
    ],
)
def test_what_is_no_tensor_is_named(outputs: Any, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        as_tuple(outputs)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        torch.optim.swa_utils.AveragedModel,
        lambda m: torch.compile(nn.DataParallel(m)),
        lambda m: m,
    ],
)
def test_the_network_is_taken_out_of_wrappers(wrap: Any) -> None:
    inside = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    found = unwrap(wrap(inside).eval())
    assert list(found.state_dict()) == ["0.weight", "0.bias"]
    assert type(found) is nn.Sequential
    assert not found.training


def test_a_wrapper_that_computes_something_stays() -> None:
    class Softmax(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.module(*inputs).softmax(1)

    wrapper = Softmax()
    assert unwrap(wrapper) is wrapper
