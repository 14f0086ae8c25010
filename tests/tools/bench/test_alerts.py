"""What comes before everything else: a score at chance, and no quantized file that is good."""

import msgspec
import pytest
from measured import make_result

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.certificates import Finding
from edgedl.runtime.bundle.manifest import Artifact, Manifest, TaskRecord
from edgedl.tools.bench.alerts import chance_alerts, quantized_alerts
from edgedl.tools.bench.result import Result, Score, with_notes_first
from edgedl.tools.report.table import result_markdown

FINDING = Finding("y", "scores", "3.0 dB of the float network", "cat", "--keep-float cat")


def scored(value: float, low: float, high: float, metric: str = "top1") -> Result:
    result = make_result()
    first, *others = result.candidates
    first = msgspec.structs.replace(first, score=Score(metric, value, 600, (low, high)))
    return msgspec.structs.replace(result, candidates=(first, *others))


def of(compressed: CompressedModel, *classes: str) -> Manifest:
    manifest = compressed.bundle.manifest
    return msgspec.structs.replace(manifest, task=TaskRecord("mine", "top1", classes))


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.90, 0.88, 0.92, False),
        (0.30, 0.26, 0.34, False),
        # The same class for every sample.
        (0.25, 0.21, 0.29, True),
        (0.02, 0.01, 0.04, True),
    ],
)
@pytest.mark.parametrize("classes", [("a", "b", "c", "d"), ()])
def test_a_score_of_four_classes(
    compressed: CompressedModel,
    value: float,
    low: float,
    high: float,
    said: bool,
    classes: tuple[str, ...],
) -> None:
    """Without names of classes the network's four outputs count."""
    notes = chance_alerts(scored(value, low, high), of(compressed, *classes))
    assert len(notes) == said
    for note in notes:
        assert "guessing among 4 classes 25.00 %" in note
        assert f"ort-float32 scores {100 * value:.2f} % [{100 * low:.2f}" in note


def test_another_metric_has_no_chance(compressed: CompressedModel) -> None:
    assert chance_alerts(scored(0.1, 0.0, 0.2, "nearness"), of(compressed, "a", "b")) == ()


def test_an_alert_is_the_first_line_of_the_result() -> None:
    result = msgspec.structs.replace(make_result(), alerts=("at chance",))
    assert result_markdown(result).splitlines()[0] == "warning: at chance"


def test_warnings_stand_in_front_of_other_notes() -> None:
    result = with_notes_first(make_result(), ["few samples"])
    assert result.recommendation.notes[0] == "few samples"
    assert result.recommendation.notes[1:] == make_result().recommendation.notes


def artifact(precision: str, *findings: Finding) -> Artifact:
    return Artifact(f"ort-{precision}", "ort", precision, "x", (), (), (), findings=findings)


@pytest.mark.parametrize(
    ("made", "refused", "said"),
    [
        ([artifact("float32"), artifact("int8")], [], ""),
        ([artifact("float32")], [], ""),
        ([artifact("float32")], ["tflite-float16"], ""),
        ([artifact("float32")], ["tflite-int8"], "none could be made"),
        ([artifact("float32"), artifact("int8", FINDING)], [], "each destroys a part"),
        ([artifact("int8", FINDING), artifact("dynamic_int8")], ["tflite-int8"], ""),
    ],
)
def test_no_quantized_file_that_is_good(made: list, refused: list, said: str) -> None:
    alerts = quantized_alerts(made, refused)
    assert len(alerts) == bool(said)
    assert all(said in alert for alert in alerts)
