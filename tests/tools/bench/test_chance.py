"""A baseline that knows no more than a guess is named."""

import msgspec
import pytest
from measured import make_result

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.manifest import Manifest, TaskRecord
from edgedl.tools.bench.chance import chance_notes
from edgedl.tools.bench.result import Result, Score, with_notes_first


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
    notes = chance_notes(scored(value, low, high), of(compressed, *classes))
    assert len(notes) == said
    for note in notes:
        assert "a guess among 4 classes 25.00 %" in note
        assert f"ort-float32 scores {100 * value:.2f} % [{100 * low:.2f}" in note


def test_another_metric_has_no_chance(compressed: CompressedModel) -> None:
    assert chance_notes(scored(0.1, 0.0, 0.2, "nearness"), of(compressed, "a", "b")) == ()


def test_the_note_is_in_front() -> None:
    result = with_notes_first(make_result(), ["at chance"])
    assert result.recommendation.notes[0] == "at chance"
    assert result.recommendation.notes[1:] == make_result().recommendation.notes
