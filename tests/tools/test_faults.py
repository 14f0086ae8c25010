"""Whose fault an error is: the user's is one line with their file; edgedl's writes a report."""

import json
import tempfile
from pathlib import Path

import pytest
from command import Done, Run

from edgedl.compress.graph.passes import canonicalize

# What every file below begins with; the line behind "# here" is the one to be named.
BEGIN = """
import functools
import numpy as np
import torch
from torch import nn
from edgedl.compress.subject import Subject
from edgedl.runtime.task import ArrayTask, Samples

X, Y = np.ones((40, 8), np.float32), np.zeros((40, 2), np.float32)

def load():
    return Samples((X,), Y)

def score(outputs, labels):
    return -np.abs(outputs[0] - labels).mean(1)

class Net(nn.Linear):
    pass

def task(**more):
    fields = {"metric": "error", "score_samples": score, **more}
    return ArrayTask("mine", {"calibration": load, "test": load}, **fields)

def subject():
    return Subject("mine", Net(8, 2).eval(), task())
"""

FAULTS = {
    "a split": """
def load():
    return Samples((X,), {"label": Y}["labels"])  # here
""",
    "a split in numpy": """
def load():
    return Samples((X.reshape(7, 7),), Y)  # here
""",
    "a split whose file is not there": """
def load():
    return np.load("nowhere.npz")  # here
""",
    "a split that needs a package": """
def load():
    import onnxscript.nothing_of_that_name  # here
""",
    "a split that exits": """
def load():
    raise SystemExit(3)  # here
""",
    "batches": """
class Own:
    name, metric, classes, preprocessing, score = "own", "error", (), None, staticmethod(score)
    def batches(self, split, batch_size):
        yield X / {}[split], Y  # here

def task():
    return Own()
""",
    "a score": """
def score(outputs, labels):
    return outputs[0] @ labels[:1]  # here
""",
    "a score behind others": """
def inner(outputs, labels):
    return functools.reduce(lambda a, b: a[b], ["x", "y"], {})  # here

def score(outputs, labels):
    return inner(outputs, labels)
""",
    "forward": """
class Net(nn.Linear):
    def forward(self, x):
        return super().forward(x[:, :3])  # here
""",
    "forward of a batch of another size": """
class Net(nn.Linear):
    def forward(self, x):
        if torch.compiler.is_exporting():
            raise ValueError("not while it is traced")  # here
        return super().forward(x)
""",
    "the function itself": """
def subject():
    return Subject("mine", nn.Linear(8, 2, colour="red"), task())  # here
""",
}


def lines(done: Done) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("edgedl:")]


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_the_users_names_file_and_line(edgedl: Run, tmp_path: Path, what: str) -> None:
    path = tmp_path / "own_file.py"
    path.write_text(BEGIN + FAULTS[what])
    number = next(i for i, x in enumerate(path.read_text().splitlines(), 1) if x.endswith("# here"))
    done = edgedl("compress", path, "--dry-run", "--target", "ort", "--recipe", "float")
    (line,) = lines(done)
    assert done.returncode == 2
    assert f"own_file.py, line {number}" in line


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        ("", "", "has no function 'subject', did you mean 'subjects'? known: load, score"),
        ("", ":subjekts", "has no function 'subjekts', did you mean 'subjects'?"),
        ("def load():\n    return X\n", ":subjects", "must give Samples(inputs, labels)"),
        ("def load():\n    return Samples(X, Y)\n", ":subjects", "Samples((x,), labels)"),
        ("load = load()\n", ":subjects", "is a Samples: it must be a function"),
        ("def load():\n    return Samples((X,), Y[:9])\n", ":subjects", "9 labels but inputs"),
        ("def score(o, y):\n    return 1.0\n", ":subjects", "one finite number per sample [2]"),
        ("X = X[:, :5]\n", ":subjects", "cannot compute the inputs of the task"),
    ],
)
def test_what_does_not_fit_is_found_before_any_work(
    edgedl: Run, tmp_path: Path, text: str, reference: str, said: str
) -> None:
    path = tmp_path / "own_file.py"
    path.write_text(BEGIN.replace("def subject()", "def subjects()") + text)
    done = edgedl("compress", f"{path}{reference}", "--dry-run", "--target", "ort")
    (line,) = lines(done)
    assert done.returncode == 2
    assert said in line
    assert len(line) < 500


def test_a_file_alone_stands_for_its_subject_and_float64_is_a_note(
    edgedl: Run, tmp_path: Path
) -> None:
    path = tmp_path / "own_file.py"
    path.write_text(f"{BEGIN}\nX = X.astype(np.float64)\n")
    done = edgedl("compress", path, "--dry-run", "--recipe", "float", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert done.stderr.count("were cast to float32") == 1


def test_a_fault_of_edgedls_own_writes_a_report(
    edgedl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of passes that holds none is a fault that a user's file cannot have."""
    monkeypatch.setattr(canonicalize, "ORDER", (None,))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = tmp_path / "own_file.py"
    path.write_text(BEGIN)
    reports = []
    for _ in range(2):
        done = edgedl("compress", path, "--dry-run", "--recipe", "float")
        (line,) = lines(done)
        assert done.returncode == 70
        assert "internal error: TypeError" in line
        reports.append(Path(line.rpartition(" ")[2]))
    assert reports[0] != reports[1]
    text = reports[0].read_text()
    assert f"edgedl compress {path} --dry-run --recipe float" in text
    assert "\nnumpy " in text
    assert "\ntorch 2" in text
    assert "Traceback (most recent call last)" in text
    assert "aten.linear.default]" in text
    assert "torch.float32 [" in text


def test_a_report_that_cannot_be_written_hides_nothing(
    edgedl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own_file.py"
    path.write_text(BEGIN)
    with monkeypatch.context() as patch:
        patch.setattr(canonicalize, "ORDER", (None,))
        patch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        done = edgedl("compress", path, "--dry-run", "--recipe", "float")
    (line,) = lines(done)
    assert done.returncode == 70
    assert "internal error: TypeError" in line
    assert "a report could not be written (No such file or directory)" in line
