"""What ``import edgedl`` offers, by name, and that nothing is imported before it is asked for."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgedl
from edgedl.compress.recipe.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "edgedl" / "__init__.py"


def typed_names() -> dict[str, str]:
    """Return the names that type checkers see, with their modules."""
    tree = ast.parse(SOURCE.read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_every_name_is_there() -> None:
    for name in edgedl.__all__:
        assert getattr(edgedl, name) is not None, name


def test_type_checkers_see_the_same_names() -> None:
    assert typed_names() == edgedl._HOME


def test_every_stage_has_a_public_name() -> None:
    assert {stage.__name__ for stage in STAGES.values()} <= set(edgedl.__all__)


def test_the_names_that_the_readme_promises() -> None:
    promised = {"compress_model", "Subject", "Recipe", "Task", "ArrayTask", "Runner", "bench"}
    assert promised | {"load_result", "EdgedlError", "BadInputError"} <= set(edgedl.__all__)


def test_dir_lists_them() -> None:
    assert dir(edgedl) == sorted(edgedl.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compress_modell'"):
        _ = edgedl.compress_modell


def test_the_package_is_imported_at_once_and_without_numpy() -> None:
    script = "import time; t = time.process_time(); import edgedl; import sys\n"
    script += "print(time.process_time() - t, 'numpy' in sys.modules, 'torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        taken, numpy, torch = done.stdout.split()
        assert (numpy, torch) == ("False", "False")
        seconds.append(float(taken))
    assert min(seconds) < 0.1


def test_a_runner_needs_no_torch() -> None:
    script = "import edgedl, sys; edgedl.Runner, edgedl.ArrayTask, edgedl.Bundle, edgedl.top1\n"
    script += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr


def test_a_missing_library_is_one_line_with_its_extra(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    script = "import edgedl\ntry:\n    edgedl.compress_model\n"
    script += "except edgedl.BackendUnavailableError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert re.fullmatch(r"edgedl\.compress_model: torch is missing: .*\n", done.stdout), done.stderr


PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("docs/examples/*.py")]
)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_pages_and_examples_import_from_edgedl_alone(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"^(?:from|import) (edgedl[\w.]*)", text, re.MULTILINE)) <= {"edgedl"}
    named = re.findall(r"^from edgedl import ([\w, ]+)$", text, re.MULTILINE)
    assert {name.strip() for line in named for name in line.split(",")} <= set(edgedl.__all__)


def test_the_page_on_python_uses_public_names() -> None:
    text = (ROOT / "docs" / "python-api.md").read_text()
    assert set(re.findall(r"\bedgedl\.(\w+)", text)) <= set(edgedl.__all__)
