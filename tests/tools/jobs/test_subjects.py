"""What --task stands for: a function of the user's, a data set, or a reference model's data."""

from pathlib import Path

import pytest

from edgedl.runtime.errors import BadInputError
from edgedl.tools.jobs.subjects import find_task


@pytest.mark.parametrize("name", ["fashion_mnist", "resnet8-fashion_mnist"])
def test_a_name_stands_for_the_data_of_a_set_or_of_a_reference_model(name: str) -> None:
    assert find_task("", name).name == find_task("fashion_mnist", None).name == "fashion_mnist"


def test_a_file_stands_for_its_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from edgedl.tools.jobs.subjects import find_task\n"
        "def task():\n    return find_task('fashion_mnist', None)\n"
    )
    assert find_task("other", str(path)).name == "fashion_mnist"


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(BadInputError, match="resnet8-fashion_mnist") as caught:
        find_task("", "resnet8-fashion_mnit")
    assert len(str(caught.value).splitlines()) == 1
