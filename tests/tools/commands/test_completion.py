"""The shell asks the command for completions as click's script does: through the environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Run

# As the console script, and says whether torch was imported.
PROGRAM = (
    "import sys\nfrom edgedl.tools.cli import main\n"
    "try:\n    main([])\n"
    "finally:\n    assert 'torch' not in sys.modules\n"
)


def completed(words: str) -> list[str]:
    """Return what bash would offer for the last of the words; "" is none begun."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "_EDGEDL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("edgedl comp", ["plain,compress", "plain,compile", "plain,completion"]),
        ("edgedl models sh", ["plain,show"]),
        ("edgedl explain --sa", ["plain,--samples"]),
        ("edgedl --with", ["plain,--without-amx"]),
        ("edgedl explain lenet", ["plain,lenet5-fashion_mnist"]),
        ("edgedl explain --recipe flo", ["plain,float"]),
        ("edgedl explain --recipe fast+flo", ["plain,fast+float"]),
        ("edgedl explain --time ope", ["plain,openvino"]),
        (
            "edgedl convert x.onnx --target ort,tens",
            ["plain,ort,tensorrt", "plain,ort,tensorrt_orin"],
        ),
        ("edgedl train gru", ["plain,gru-watch"]),
        ("edgedl models show rnn", ["plain,rnn-watch"]),
        ("edgedl data fetch cif", ["plain,cifar10"]),
        ("edgedl recipes low", ["plain,low_rank_e90"]),
        ("edgedl targets tfl", ["plain,tflite"]),
        ("edgedl completion z", ["plain,zsh"]),
        # No model begins so: the shell offers files.
        ("edgedl explain ./mine", ["file,./mine"]),
    ],
)
def test_names_are_completed(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_nothing_is_offered_twice() -> None:
    offered = completed("edgedl ")
    assert len(offered) == len(set(offered))
    assert "plain,recipes" in offered


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", "complete -o nosort -F _edgedl_completion edgedl"),
        ("zsh", "#compdef edgedl"),
        ("fish", "complete --no-files --command edgedl"),
    ],
)
def test_scripts(edgedl: Run, tmp_path: Path, shell: str, words: str) -> None:
    done = edgedl("completion", shell)
    assert done.returncode == 0
    assert words in done.stdout
    assert "_EDGEDL_COMPLETE" in done.stdout
    program = shutil.which(shell)
    if program is not None:
        script = tmp_path / "script"
        script.write_text(done.stdout)
        assert subprocess.run([program, "-n", str(script)]).returncode == 0


def test_a_shell_that_is_not_known(edgedl: Run) -> None:
    done = edgedl("completion", "tcsh")
    assert done.returncode == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
