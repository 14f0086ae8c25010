"""Whose line an exception comes from, and what an exception carries."""

import ast
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedl.compress.errors import attach_graph, attached_graph, located, user_line
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import about

HERE = Path(__file__)


def raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def line_of(marker: str) -> int:
    return next(i for i, x in enumerate(HERE.read_text().splitlines(), 1) if x.endswith(marker))


def in_numpy() -> object:
    return np.zeros((2, 3)) @ np.zeros((2, 3))  # in numpy


def in_torch() -> object:
    return torch.nn.Linear(3, 2)(torch.zeros(1, 4))  # in torch


def in_the_standard_library() -> object:
    return json.loads("{")  # in json


def in_a_generator() -> object:
    def numbers() -> Iterator[int]:
        yield 1
        yield {}["b"]  # in a generator

    return functools.reduce(lambda a, b: a + b, numbers())


def raised_again_by_the_user() -> object:
    try:
        return {}["a"]
    except KeyError as error:
        raise RuntimeError("no a") from error  # raised again


@pytest.mark.parametrize(
    ("call", "marker", "said"),
    [
        (in_numpy, "# in numpy", "ValueError: matmul"),
        (in_torch, "# in torch", "RuntimeError: mat1 and mat2 shapes"),
        (in_the_standard_library, "# in json", "JSONDecodeError: Expecting property name"),
        (in_a_generator, "# in a generator", "KeyError: 'b'"),
        (raised_again_by_the_user, "# raised again", "RuntimeError: no a"),
    ],
)
def test_the_innermost_line_of_the_users_is_found(
    call: Callable[[], object], marker: str, said: str
) -> None:
    found = user_line(raised(call))
    assert found is not None
    assert (found.file, found.number) == (HERE, line_of(marker))
    assert f"line {line_of(marker)}: {said}" in str(found)
    assert len(str(found).splitlines()) == 1


def test_a_fault_inside_edgedl_is_nobody_elses() -> None:
    assert user_line(raised(lambda: about("soon"))) is None  # type: ignore[arg-type]


def test_what_edgedl_raises_from_a_users_error_is_the_users() -> None:
    own = raised(lambda: about("soon"))  # type: ignore[arg-type]
    own.__cause__ = raised(in_numpy)
    found = user_line(own)
    assert found is not None
    assert found.number == line_of("# in numpy")


def test_a_syntax_error_in_an_imported_file_names_that_file(tmp_path: Path) -> None:
    path = tmp_path / "half.py"
    path.write_text("x = 1\ny = (\n")
    found = user_line(raised(lambda: compile(path.read_text(), str(path), "exec")))
    assert found is not None
    assert (found.file, found.number) == (path, 2)


def test_a_syntax_error_of_no_file_is_where_it_was_parsed() -> None:
    found = user_line(raised(lambda: ast.parse("(")))  # parsed here
    assert found is not None
    assert (found.file, found.number) == (HERE, line_of("# parsed here"))


def test_what_edgedl_refuses_while_a_users_file_runs_is_located_there() -> None:
    error = located(HERE, raised(lambda: about("soon")))  # type: ignore[arg-type]
    assert isinstance(error, BadInputError)
    assert f"{HERE.name}, line " in str(error)
    assert "TypeError" in str(error)


def test_an_exception_carries_the_innermost_graph_through_causes() -> None:
    inner, outer = ValueError("inner"), RuntimeError("outer")
    assert attached_graph(outer) is None
    attach_graph(inner, "the graph")
    attach_graph(inner, "another graph around it")
    outer.__cause__ = inner
    assert attached_graph(outer) == "the graph"
