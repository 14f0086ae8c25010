"""Full-size configurations have the published sizes; small parts compute what the papers say."""

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.models.alexnet import AlexNet
from edgedl.models.bert import Bert
from edgedl.models.efficientnet import EfficientNet, SqueezeExcite, convolution
from edgedl.models.googlenet import GoogLeNet, Inception
from edgedl.models.mobilenet import MobileNet
from edgedl.models.mobilenet_v2 import InvertedResidual, MobileNetV2
from edgedl.models.mobilenet_v3 import MobileNetV3
from edgedl.models.recurrent import RecurrentClassifier
from edgedl.models.resnet import ResNet, ResNetCifar
from edgedl.models.vgg import VGG
from edgedl.models.vit import VisionTransformer


def count(module):
    return sum(p.numel() for p in module.parameters())


def norm_channels(module):
    return sum(m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm2d))


# The published counts are of networks with biases and without batch norm, where they are older.
# A batch norm has two values per channel where a bias has one.
@pytest.mark.parametrize(
    ("make", "published", "norms_for_biases"),
    [
        pytest.param(
            lambda: AlexNet(3, 1000, (96, 256, 384, 384, 256), 4096, small=False),
            62_378_344, True, id="alexnet",
        ),
        pytest.param(
            lambda: VGG("vgg16", classes=1000, image_size=224, hidden=(4096, 4096)),
            138_357_544, True, id="vgg16",
        ),
        pytest.param(
            lambda: VGG("vgg11", classes=1000, image_size=224, hidden=(4096, 4096)),
            132_863_336, True, id="vgg11",
        ),
        pytest.param(
            lambda: GoogLeNet(classes=1000, small=False), 6_998_552, True, id="googlenet",
        ),
        pytest.param(lambda: ResNet(18), 11_689_512, False, id="resnet18"),
        pytest.param(lambda: ResNet(34), 21_797_672, False, id="resnet34"),
        pytest.param(lambda: ResNet(50), 25_557_032, False, id="resnet50"),
        pytest.param(lambda: MobileNet(classes=1000, small=False), 4_231_976, False, id="mbv1"),
        pytest.param(lambda: MobileNetV2(classes=1000, small=False), 3_504_872, False, id="mbv2"),
        pytest.param(MobileNetV3, 5_483_032, False, id="mbv3"),
        pytest.param(lambda: EfficientNet(classes=1000, small=False), 5_288_548, False, id="b0"),
        pytest.param(
            lambda: EfficientNet(classes=1000, small=False, lite=True), 4_652_008, False,
            id="lite0",
        ),
    ],
)  # fmt: skip
def test_full_size_has_the_published_parameters(make, published, norms_for_biases):
    with torch.device("meta"):
        module = make()
    extra = norm_channels(module) if norms_for_biases else 0
    assert count(module) - extra == published


@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(
            lambda: AlexNet(3, 1000, (96, 256, 384, 384, 256), 4096, small=False), 227, id="alexnet"
        ),
        pytest.param(lambda: GoogLeNet(classes=1000, small=False), 224, id="googlenet"),
        pytest.param(lambda: ResNet(50), 224, id="resnet50"),
        pytest.param(
            lambda: VGG("vgg11", classes=1000, image_size=224, hidden=(4096, 4096)), 224, id="vgg11"
        ),
        pytest.param(lambda: MobileNetV2(classes=1000, small=False), 224, id="mbv2"),
        pytest.param(MobileNetV3, 224, id="mbv3"),
        pytest.param(lambda: EfficientNet(classes=1000, small=False), 224, id="b0"),
    ],
)
def test_full_size_takes_full_size_pictures(make, size):
    with torch.device("meta"):
        logits = make().eval()(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, 1000)


@pytest.mark.parametrize("blocks", [3, 5, 9])
def test_cifar_resnets_have_6n_plus_2_layers(blocks):
    main_path = [
        name
        for name, m in ResNetCifar(blocks).named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(main_path) == 6 * blocks + 2


def test_inception_joins_its_branches_in_the_order_of_the_table():
    block = Inception(8, (4, 2, 6, 2, 3, 5)).eval()
    x = torch.randn(1, 8, 7, 7)
    with torch.no_grad():
        y = block(x)
        parts = [block.branch1(x), block.branch3(x), block.branch5(x), block.branch_pool(x)]
    assert [p.shape[1] for p in parts] == [4, 6, 3, 5]
    assert y.shape == (1, block.out_channels, 7, 7)
    torch.testing.assert_close(y, torch.cat(parts, 1))


def test_inverted_residual_has_a_linear_bottleneck_and_a_shortcut():
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, 1, 6).eval()
    x = torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(block(x) - x, block.block(x), atol=1e-5, rtol=1e-4)
        assert (block.block(x) < 0).any()
    assert not InvertedResidual(8, 16, 1, 6).shortcut
    assert not InvertedResidual(8, 8, 2, 6).shortcut


def test_squeeze_excite_against_numpy():
    torch.manual_seed(0)
    gate = SqueezeExcite(4, 2).eval()
    x = torch.randn(1, 4, 3, 3)
    w1, b1 = gate.reduce.weight.detach().numpy()[:, :, 0, 0], gate.reduce.bias.detach().numpy()
    w2, b2 = gate.expand.weight.detach().numpy()[:, :, 0, 0], gate.expand.bias.detach().numpy()
    z = w1 @ x.numpy()[0].mean((1, 2)) + b1
    s = 1 / (1 + np.exp(-(w2 @ (z / (1 + np.exp(-z))) + b2)))
    with torch.no_grad():
        np.testing.assert_allclose(gate(x)[0].numpy(), x.numpy()[0] * s[:, None, None], atol=1e-5)


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (5, 8), (3, 14), (5, 28)])
def test_published_padding_is_that_of_tensorflow(kernel, size):
    """TensorFlow's SAME: out = ceil(in / stride), the odd pixel of padding right and below."""
    layers = nn.Sequential(*convolution(1, 1, kernel, 2, published=True)[:-1])
    total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
    before, after = total // 2, total - total // 2
    x = torch.randn(1, 1, size, size)
    padded = nn.functional.pad(x, (before, after, before, after))
    with torch.no_grad():
        expected = nn.functional.conv2d(padded, layers[-1].weight, stride=2)
        torch.testing.assert_close(layers(x), expected)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("length", [1, 7, 100])
def test_recurrent_classifier_takes_any_length(cell, length):
    with torch.no_grad():
        logits = RecurrentClassifier(cell=cell).eval()(torch.randn(3, length, 6))
    assert logits.shape == (3, 7)


def test_vit_base_has_the_published_parameters_but_for_the_class_token():
    with torch.device("meta"):
        module = VisionTransformer()
    class_token_and_its_position = 2 * 768
    assert count(module) == 86_567_656 - class_token_and_its_position


def test_bert_base_has_the_published_parameters_but_for_the_pooler():
    with torch.device("meta"):
        module = Bert()
    pooler = 768 * 768 + 768
    assert count(module) == 109_482_240 - pooler


def test_vit_sees_where_a_patch_is():
    torch.manual_seed(0)
    module = VisionTransformer(3, 5, 32, 8, 16, 2, 2, 32, stem=((8, 2),)).eval()
    x = torch.rand(2, 3, 32, 32)
    assert module(x).shape == (2, 5)
    swapped = torch.cat([x[..., 16:], x[..., :16]], 3)
    patches = VisionTransformer(3, 5, 32, 16, 16, 2, 2, 32).eval()
    assert not torch.allclose(patches(x), patches(swapped), atol=1e-4)
    # Without positions, it does not.
    with torch.no_grad():
        patches.positions.zero_()
    assert torch.allclose(patches(x), patches(swapped), atol=1e-5)
