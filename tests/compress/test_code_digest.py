"""A digest of code changes with what the code does, and with nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgedl.compress import code_digest
from edgedl.compress.code_digest import Project
from edgedl.compress.latency.price_folder import TIMES
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.stages import STAGES

FILES = {
    "__init__.py": "",
    "stage.py": '''"""A stage."""

from importlib.resources import files

from toy.near import ADDED


def apply(x):
    """Add."""
    from toy.lazy import doubled

    table = files("toy.tables").read_text()
    return doubled(x) + ADDED + len(table)
''',
    "near.py": "ADDED = 1\n",
    "lazy.py": "def doubled(x):\n    return 2 * x\n",
    "unused.py": "NOTHING = 0\n",
    "tables/__init__.py": "",
    "tables/first.yaml": "a: 1\n",
    "backends/__init__.py": "",
    "backends/one.py": "NAME = 1\n",
}
BY_BEGINNING = (
    "from importlib import import_module\n\n\n"
    "def doubled(x):\n    return import_module(f'toy.backends.{x}.part').NAME\n"
)
BY_ANY_NAME = "import importlib\n\n\ndef doubled(x):\n    return importlib.import_module(x)\n"
Change = Callable[[Path], object]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return tmp_path / "toy"


def digest(toy: Path) -> str:
    return Project({"toy": toy}).digest("toy.stage")


def edit(name: str, old: str, new: str) -> Change:
    def change(toy: Path) -> None:
        text = (toy / name).read_text()
        assert old in text
        (toy / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    "change",
    [
        edit("stage.py", "+ ADDED", "- ADDED"),
        edit("near.py", "1", "2"),
        edit("lazy.py", "2 * x", "3 * x"),
        edit("tables/first.yaml", "1", "2"),
        lambda toy: (toy / "tables/second.yaml").write_text("b: 1\n"),
        lambda toy: (toy / "__init__.py").write_text("import toy.unused\n"),
    ],
)
def test_what_the_code_does_counts_through_every_import(toy: Path, change: Change) -> None:
    before = digest(toy)
    assert digest(toy) == before
    change(toy)
    assert digest(toy) != before


@pytest.mark.parametrize(
    "change",
    [
        edit("stage.py", "A stage.", "Another sentence."),
        edit("stage.py", '    """Add."""\n', ""),
        edit("lazy.py", "    return", "    # Twice.\n\n    return"),
        edit("unused.py", "0", "1"),
        edit("backends/one.py", "1", "2"),
    ],
)
def test_docstrings_comments_and_other_modules_do_not_count(toy: Path, change: Change) -> None:
    before = digest(toy)
    change(toy)
    assert digest(toy) == before


def test_an_import_by_the_beginning_of_a_name_takes_all_that_begin_so(toy: Path) -> None:
    (toy / "lazy.py").write_text(BY_BEGINNING)
    before = digest(toy)
    edit("unused.py", "0", "1")(toy)
    assert digest(toy) == before
    edit("backends/one.py", "1", "2")(toy)
    changed = digest(toy)
    assert changed != before
    (toy / "backends/two.py").write_text("NAME = 2\n")
    assert digest(toy) != changed


@pytest.mark.parametrize(
    "text",
    [
        BY_ANY_NAME,
        "from importlib import import_module as load\n\n\ndef doubled(x):\n    return load(x)\n",
        "from importlib.resources import files\n\n\ndef doubled(x):\n    return files(x)\n",
    ],
)
def test_where_imports_cannot_be_followed_the_whole_project_counts(toy: Path, text: str) -> None:
    (toy / "lazy.py").write_text(text)
    before = digest(toy)
    edit("unused.py", "0", "1")(toy)
    changed = digest(toy)
    assert changed != before
    edit("tables/first.yaml", "1", "2")(toy)
    assert digest(toy) != changed


def test_edgedls_own_imports_are_followed() -> None:
    project = code_digest.edgedl()
    # A name that is not constant would be an error.
    for roots in (TIMES, *(stage.__module__ for stage in STAGES.values())):
        assert roots in project._closure((roots,))
    narrow = project._closure((QuantizeStatic.__module__,))
    wide = project._closure((PruneChannels.__module__,))
    assert "edgedl.compress.encodings.calibrate" in narrow
    assert not {name for name in narrow if name.startswith("edgedl.compress.prune")}
    # By names that begin constant, and inside functions.
    assert {"edgedl.compress.export.tflite.exporter", "edgedl.runtime.backends.ort"} <= wide
    assert code_digest.code_digest(QuantizeStatic) != code_digest.code_digest(PruneChannels)
    assert not {name for name in wide if name.startswith("edgedl.models")}
