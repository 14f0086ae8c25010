"""What ``edgedl`` alone shows, and what it suggests for names that there are not."""

import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from command import Run, assert_one_line
from measured import make_result

from edgedl.tools.bench.result import write_result
from edgedl.tools.cli import COMMANDS, DATA, GROUPS, cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_shows_the_groups(edgedl: Run, arguments: list[str]) -> None:
    done = edgedl(*arguments)
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [lines.index(f"{group.title}:") for group in GROUPS]
    assert titles == sorted(titles)
    for command in COMMANDS:
        (line,) = [n for n, text in enumerate(lines) if text.split()[:1] == [command.name]]
        # One line, in its own group.
        assert lines[line].endswith(command.help)
        assert [g for g, n in zip(GROUPS, titles, strict=True) if n < line][-1] is command.group
    for group in GROUPS:
        assert f"  $ {group.example}" in lines


def test_every_module_of_commands_is_one() -> None:
    modules = {path.stem for path in (ROOT / "tools" / "commands").glob("[!_]*.py")}
    assert sorted(command.name for command in COMMANDS) == sorted(modules)
    assert {command.group for command in COMMANDS} == set(GROUPS)


def test_help_is_quick() -> None:
    def imported() -> tuple[float, list[str]]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "edgedl"], capture_output=True, text=True
        )
        assert done.returncode == 0
        rows = [line.split("|") for line in done.stderr.splitlines() if "|" in line]
        times = {row[2].strip(): row[1] for row in rows}
        return int(times["edgedl.tools.cli"]) / 1e6, list(times)

    runs = [imported() for _ in range(3)]
    # Of three, the one that others disturbed least.
    assert min(seconds for seconds, _ in runs) < 0.2
    assert not {"torch", "numpy", "yaml", "onnx"} & set(runs[0][1])


@pytest.mark.slow
def test_the_examples_work(edgedl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for group in GROUPS:
        _, name, *arguments = shlex.split(group.example)
        if group is DATA:
            # It asks a package client on the network; here it is read alone.
            command = cli.get_command(click.Context(cli), name)
            assert isinstance(command, click.Group)
            _, chosen, rest = command.resolve_command(click.Context(command), arguments)
            assert chosen is not None
            assert chosen.make_context(name, rest)
        else:
            assert edgedl(name, *arguments).returncode == 0


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the user's in the working folder, with a function ``subject``."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text("def subject():\n    return 7\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compres"], "No such command 'compres', did you mean 'compress'? known: compress, "),
        (["models", "shw"], "No such command 'shw', did you mean 'show'? known: show, table"),
        (["explain", "x", "--sed", "1"], "--seed"),
        (["explain", "lenet"], "unknown model 'lenet', did you mean 'lenet5-fashion_mnist'?"),
        (["train", "resnet8-cifar"], "did you mean 'resnet8-cifar10'?"),
        (["models", "show", "gru"], "unknown model 'gru', did you mean 'gru-watch'?"),
        (["data", "fetch", "cifar"], "unknown data set 'cifar', did you mean 'cifar10'?"),
        (["recipes", "fsat"], "there is no recipe 'fsat', did you mean 'fast'?"),
        (["targets", "orin"], "unknown target 'orin', did you mean 'tensorrt_orin'?"),
        (
            ["explain", "lenet5-fashion_mnist", "--recipe", "fast+qta"],
            "there is no recipe 'qta'",
        ),
        (
            ["convert", "x.onnx", "--target", "ort,tensort", "--out", "y"],
            "unknown target 'tensort', did you mean 'tensorrt'?",
        ),
        (
            ["explain", "lenet5-fashion_mnist", "--time", "rot"],
            "unknown runtime 'rot', did you mean 'ort'?",
        ),
        (["explain", "mime.py:subject"], "there is no file 'mime.py', did you mean 'mine.py'?"),
        (
            ["explain", "mine.py:subjct"],
            "mine.py has no function 'subjct', did you mean 'subject'?",
        ),
    ],
)
def test_the_nearest_name_is_told(
    edgedl: Run, own_file: Path, arguments: list[str], words: str
) -> None:
    assert_one_line(edgedl(*arguments), 2, words)


def test_the_nearest_name_in_a_bundle_is_told(
    edgedl: Run, bundle_copy: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 12, 12), np.float32))
    run = ["run", bundle_copy, "--input", tmp_path / "x.npy"]
    assert_one_line(edgedl(*run, "--artifact", "ort-int9"), 2, "did you mean 'ort-int8'? known:")
    assert_one_line(edgedl(*run, "--backend", "ortt"), 2, "did you mean 'ort'? known:")
    bench = ["bench", bundle_copy, "--out", tmp_path / "out"]
    done = edgedl(*bench, "--baseline-artifact", "ort-flat32")
    assert_one_line(
        done, 2, "'ort-flat32' runs on this machine, did you mean 'ort-float32'? known:"
    )
    done = edgedl(*bench, "--budget", "p90_m<2")
    assert_one_line(done, 2, "no quantity 'p90_m', did you mean 'p90_ms'? known:")
    assert not (tmp_path / "out").exists()
    other = bundle_copy.with_name("bundel")
    done = edgedl("verify", other)
    assert_one_line(done, 2, f"there is no such folder, did you mean '{bundle_copy}'?")


def test_commands_take_the_output_folder_for_the_bundle(
    edgedl: Run, bundle_copy: Path, tmp_path: Path
) -> None:
    around = bundle_copy.parent
    x = tmp_path / "x.npy"
    np.save(x, np.zeros((1, 3, 12, 12), np.float32))
    for name, options in (
        ("run", ["--input", x, "--backend", "ort"]),
        ("inspect", []),
        ("inspect", ["--layers"]),
    ):
        done = edgedl(name, around, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout == edgedl(name, bundle_copy, *options).stdout


def test_a_result_is_looked_for_around_the_bundle(edgedl: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "demo" / "bundle"
    bundle.mkdir(parents=True)
    write_result(bundle.parent, make_result(), {})
    assert edgedl("report", bundle.parent, "--out", "-").returncode == 0
    done = edgedl("report", bundle, "--out", "-")
    assert_one_line(done, 2, f"give the folder around it, {bundle.parent}")
    done = edgedl("report", tmp_path / "dmo", "--out", "-")
    assert_one_line(done, 2, f"did you mean '{bundle.parent}'?")
