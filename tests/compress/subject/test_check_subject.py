"""What a user can get wrong in a subject is found by a look at the first samples."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_net, make_subject, make_task
from torch import Tensor, nn

from edgedl.compress.state import begin
from edgedl.compress.subject.check_subject import check_subject
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.task.task import ArrayTask, Samples

X = np.random.default_rng(0).random((8, 3, 12, 12)).astype(np.float32)
Y = np.arange(8) % 4


def with_splits(calibration: Any, test: Any, **more: Any) -> Subject:
    splits = {"calibration": lambda: calibration, "test": lambda: test}
    return Subject("tiny", make_net(), ArrayTask("mine", splits, **more))


def with_pictures(pixels: Any, preprocessing: ImagePreprocessing) -> Subject:
    samples = Samples((pixels,), Y)
    return with_splits(samples, samples, preprocessing=preprocessing)


def pictures_of(**more: Any) -> ImagePreprocessing:
    return ImagePreprocessing(12, 12, "RGB", **more)


def test_a_good_subject_has_nothing_to_say_and_stays_as_it_is() -> None:
    subject = make_subject()
    before = {name: x.clone() for name, x in subject.module.state_dict().items()}
    subject.module.train()
    assert check_subject(subject) == ()
    assert subject.module.training
    assert all(torch.equal(before[k], x) for k, x in subject.module.state_dict().items())


def test_float64_inputs_are_a_note_once() -> None:
    samples = Samples((X.astype(np.float64),), Y)
    subject = with_splits(samples, samples)
    assert check_subject(subject) == (
        "inputs of task 'mine' are float64: they were cast to float32",
    )
    assert [x.dtype for x in subject.example_inputs()] == [torch.float32]


def test_a_label_beyond_the_networks_outputs() -> None:
    labels = np.where(np.arange(8) == 7, 4, 0)
    subject = with_splits(Samples((X,), Y), Samples((X,), labels))
    with pytest.raises(BadInputError, match=r"'test' .* label 4, and the network has 4 outputs"):
        check_subject(subject)


def test_inputs_that_the_network_does_not_take() -> None:
    samples = Samples((X[:, :2],), Y)
    with pytest.raises(BadInputError, match=r"float32 \[2, 2, 12, 12\]: RuntimeError: .*channels"):
        check_subject(with_splits(samples, samples))
    two = Samples((X, X), Y)
    with pytest.raises(BadInputError, match=r"TinyNet cannot compute .* takes 2 positional"):
        check_subject(with_splits(two, two))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda outputs, labels: 0.5, r"one finite number per sample \[2\]"),
        (lambda outputs, labels: np.full(len(labels), np.nan), "2 are not finite"),
        # A library's function: no line of it is the user's.
        (partial(np.matmul), "cannot take outputs .* ValueError"),
    ],
)
def test_a_score_is_tried_on_two_samples(score: Callable[..., Any], said: str) -> None:
    task = replace(make_task(), score_samples=score)
    with pytest.raises(BadInputError, match=said):
        check_subject(Subject("tiny", make_net(), task))


def test_an_error_in_the_users_score_stays_what_it_is() -> None:
    task = replace(make_task(), score_samples=lambda outputs, labels: {}["a"])
    with pytest.raises(KeyError):
        check_subject(Subject("tiny", make_net(), task))


@pytest.mark.parametrize(
    ("preprocessing", "said"),
    [
        # The usual mean in 0..255, pixels in 0..1.
        (
            pictures_of(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)),
            "so the brightest becomes -1.*scale=1 for",
        ),
        # The usual mean in 0..1, pixels in 0..255.
        (
            pictures_of(scale=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            "which makes them -.* to 1.*scale=1/255 for",
        ),
    ],
)
def test_a_mean_of_another_scale_than_the_pixels(
    preprocessing: ImagePreprocessing, said: str
) -> None:
    pixels = np.zeros((8, 12, 12, 3), np.uint8)
    with pytest.raises(BadInputError, match=said):
        check_subject(with_pictures(pixels, preprocessing))


@pytest.mark.parametrize(
    ("pixels", "preprocessing"),
    [
        (X * 255, pictures_of()),
        (X * 255, pictures_of(mean=(0.5,) * 3, std=(0.25,) * 3)),
        (X, pictures_of(scale=1.0)),
        (X, pictures_of(scale=1.0, mean=(127.5,) * 3, std=(1.0,) * 3)),
        (X, pictures_of(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
        (X * 6 - 3, pictures_of()),
    ],
)
def test_pictures_on_another_scale_than_their_preprocessing(
    pixels: Any, preprocessing: ImagePreprocessing
) -> None:
    with pytest.raises(BadInputError, match="give them as uint8"):
        check_subject(with_pictures(pixels, preprocessing))


@pytest.mark.parametrize(
    ("pixels", "preprocessing"),
    [
        (X, pictures_of()),
        (np.zeros_like(X), pictures_of(mean=(0.5,) * 3, std=(0.25,) * 3)),
        (X * 4 - 2, pictures_of(mean=(0.5,) * 3, std=(0.25,) * 3)),
        (X * 255, pictures_of(scale=1.0)),
        (X * 2 - 1, pictures_of(scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3)),
        # Noise around the scale, and a dark room.
        (X * 1.4 - 0.2, pictures_of()),
        (X * 0.01, pictures_of()),
        ((X.transpose(0, 2, 3, 1) * 255).astype(np.uint8), pictures_of(mean=(0.5,) * 3)),
    ],
)
def test_pictures_on_the_scale_of_their_preprocessing(
    pixels: Any, preprocessing: ImagePreprocessing
) -> None:
    assert check_subject(with_pictures(pixels, preprocessing)) == ()


class Counting(nn.Module):
    """Counts its calls in a buffer, replaces another one, and remembers what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))
        self.heard: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = x[:, 0, 0, 0]
        self.last = x.mean()
        self.heard.append(self.last)
        return self.net(x)


@pytest.mark.parametrize("look", [check_subject, begin])
def test_the_users_module_is_as_it_was(look: Callable[[Subject], object]) -> None:
    module = Counting().eval()
    calls, seen = module.calls, module.seen
    look(Subject("counting", module, make_task()))
    assert not hasattr(module, "last")
    assert module.heard == []
    assert module.calls is calls
    assert module.seen is seen
    assert calls == 0
    assert (seen == 0).all()
