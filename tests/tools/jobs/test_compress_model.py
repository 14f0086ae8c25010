"""Three lines each: a DataLoader, arrays with labels, arrays without; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import edgedl

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 3, 16, 16)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.Flatten(),
        nn.Linear(128, 4),
    ).eval()


def labels() -> Any:
    with torch.no_grad():
        return network()(torch.from_numpy(X)).argmax(1)


@pytest.mark.slow
def test_a_network_and_a_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, data = network(), TensorDataset(torch.from_numpy(X), labels())

    loader = DataLoader(data, batch_size=16, shuffle=True)
    made = edgedl.compress_model(module, loader, targets="ort", out="made")
    (y,) = made.runner("ort")(X[:3])

    assert y.shape == (3, 4)
    assert made.files.keys() == {"ort-float32", "ort-float16", "ort-int8"}
    assert all(path.is_file() for path in made.files.values())
    assert made.report == Path("made/report.html")
    assert made.report.is_file()
    assert made.result.candidates[0].score.metric == "top1"
    assert edgedl.load_result(made.folder) == made.result
    with made.runner(threads=1) as best:
        assert best.artifact.name == made.result.recommendation.name
    last = repr(made).splitlines()
    assert max(len(line) for line in last) <= 80
    assert last[-2:] == ["bundle: made/bundle", "report: made/report.html"]
    assert "explain" not in repr(made)
    html = made._repr_html_()
    assert html.count("<tr>") == 4
    assert "ort-int8" in html


@pytest.mark.slow
def test_arrays_with_labels() -> None:
    module, x, y = network(), X, labels().numpy()

    made = edgedl.compress_model(module, (x[:32], y[:32]), test=(x[32:], y[32:]), targets="ort")

    assert made.result.candidates[0].score.value == 1.0
    assert "score top1" in repr(made)
    assert made.result.candidates[0].score.n == 32
    assert made.bundle.manifest.task.classes == ("0", "1", "2", "3")


@pytest.mark.slow
def test_arrays_without_labels() -> None:
    module, x = nn.Sequential(network(), nn.Unflatten(1, (2, 2))).eval(), X

    made = edgedl.compress_model(module, x, targets=["ort"], recipe="static_w8c_a8", name="mine")

    scores = {c.name: c.score for c in made.result.candidates}
    assert scores["ort-float32"].metric == "sqnr"
    assert scores["ort-float32"].value == pytest.approx(1, abs=1e-9)
    assert 0.9 < scores["ort-int8"].value < 1
    assert " dB" in repr(made)
    assert any("no labels" in note for note in made.result.recommendation.notes)
    assert made.bundle.manifest.name == "mine"


@pytest.mark.slow
def test_a_recipe_that_trains_on_the_users_loss(tmp_path: Path) -> None:
    module, wanted = network(), RNG.standard_normal((64, 4)).astype(np.float32)
    recipe = edgedl.Recipe(
        "smaller",
        (edgedl.PruneChannels(ratio=0.5, multiple=1), edgedl.FineTune(epochs=1, distil=0)),
    )

    def squares(y: Tensor, t: Tensor) -> Tensor:
        return ((y - t) ** 2).mean()

    made = edgedl.compress_model(
        module, X, (X, wanted), (X, wanted), loss=squares, recipe=recipe, targets="ort",
        out=tmp_path / "made",
    )  # fmt: skip
    assert made.result.candidates[0].score.metric == "r2"
    example = (torch.from_numpy(X[:2]),)
    from safetensors.torch import load

    weights = load(made.bundle.read("network.safetensors"))
    small = edgedl.rebuild(module, example, made.bundle.manifest.history, weights)
    assert small(example[0]).shape == (2, 4)


@pytest.mark.slow
def test_a_bundle_is_measured_again(tmp_path: Path) -> None:
    made = edgedl.compress_model(network(), X, targets="ort", recipe="float", out=tmp_path / "made")
    task = edgedl.ArrayTask(
        "mine", {"test": lambda: edgedl.Samples((X,), labels().numpy())}, classes=tuple("abcd")
    )
    result = edgedl.bench(made.bundle, task=task)
    assert [c.name for c in result.candidates] == ["ort-float32", "ort-float16"]
    assert result.candidates[0].score.value == 1.0


def far_away() -> nn.Module:
    return nn.Linear(4, 2, device="meta")


def own_subject() -> Any:
    return edgedl.Subject("s", network(), edgedl.ArrayTask("t", {}))


WRONG: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "no data": (network(), None, {}, "calibration is None: it must be arrays"),
    "an empty loader": (
        network(),
        DataLoader(X[:0], batch_size=4),
        {},
        "calibration has no samples",
    ),
    "labels that do not fit": (
        network(),
        X,
        {"test": (X, np.zeros((64, 9)))},
        "fit no usual score",
    ),
    "another device": (far_away(), X, {}, "weight is on the device meta: give module.cpu()"),
    "half precision": (network().half(), X, {}, "is float16: give module.float()"),
    "TorchScript": (torch.jit.trace(network(), torch.from_numpy(X)), X, {}, "is TorchScript"),
    "too many threads": (network(), X, {"threads": 999}, "whole numbers from 1 to 64"),
    "no threads": (network(), X, {"threads": "a"}, "whole numbers from 1 to 64"),
    "a negative drop": (network(), X, {"max_drop": -1}, "max_drop is in points"),
    "no number": (network(), X, {"max_drop": float("nan")}, "max_drop is in points"),
    "targets of another kind": (network(), X, {"targets": ["ort", 3]}, "names or Target objects"),
    "a generator that has ended": (network(), iter([]), {}, "calibration has no samples"),
    "a target twice": (network(), X, {"targets": ["ort", "ort"]}, "name each once"),
    "an unknown target": (network(), X, {"targets": "ort2"}, "did you mean 'ort'"),
    "an unknown recipe": (network(), X, {"recipe": "statik_w8c_a8"}, "did you mean"),
    "nothing to train on": (network(), X, {"recipe": "qat_w8c_a8"}, "the recipe trains"),
    "no module": (3, X, {}, "model is a int"),
    "data beside a subject": (own_subject(), X, {}, "leave calibration out"),
    "an unknown model": ("resnet8-fashion_mnits", None, {}, "did you mean"),
}


@pytest.mark.parametrize(("model", "data", "rest", "says"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_before_any_work(
    model: Any, data: Any, rest: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(edgedl.BadInputError, match=says) as error:
        edgedl.compress_model(model, data, out=tmp_path / "made", **rest)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(edgedl.EdgedlError):
        edgedl.compress_model(network(), X, targets="ort", keep_float=["no such layer"])
    assert not list(tmp_path.glob("edgedl-*"))


def test_the_users_module_stays_as_it_is() -> None:
    from edgedl.compress.training.check_training import check_training

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 4))
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    splits = ("calibration", "test", "train")
    task = edgedl.ArrayTask(
        "t",
        {name: lambda: edgedl.Samples((X,), np.arange(64) % 4) for name in splits},
        classes=tuple("abcd"),
    )
    check_training(edgedl.Subject("s", module, task), 0.0)
    assert module.training
    edgedl.Subject("s", nn.DataParallel(module.eval()), task)
    assert not module.training
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_a_folder_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(edgedl.BadInputError, match="is not an empty folder"):
        edgedl.compress_model(network(), X, out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "kept"
