"""The lint against NVIDIA's own parser and builder, on the same small files."""

import importlib.util

import onnx
import pytest
from lint_graphs import BAD, GOOD, MISREAD, UNKNOWN

from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.export.tensorrt.lint import lint, remarks
from edgedl.runtime.tensorrt.build import BuildSettings, EngineRefusedError, build
from edgedl.runtime.tensorrt.library import Library, open_library
from edgedl.runtime.tensorrt.profiles import profile

NAMES = [*GOOD, *BAD, *MISREAD, *UNKNOWN]
FILES = {**GOOD, **BAD, **MISREAD, **UNKNOWN}


@pytest.fixture(scope="module")
def rtx() -> Library:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx is not installed")
    return open_library("tensorrt_rtx")


def accepts(rtx: Library, model: onnx.ModelProto, *, with_profile: bool = True) -> bool:
    content = model.SerializeToString()
    sizes = profile(describe_onnx(content)[0]) if with_profile else ()
    try:
        build(rtx, content, BuildSettings("tensorrt_rtx", sizes))
    except EngineRefusedError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_nvidias_parser_and_builder_agree_with_the_lint(rtx: Library, name: str) -> None:
    onnx.checker.check_model(FILES[name])
    problems = lint(FILES[name])
    assert (not problems) is (name in GOOD or name in UNKNOWN), problems
    assert all(len(problem.splitlines()) == 1 for problem in problems)
    assert accepts(rtx, FILES[name]) is (name in GOOD or name in MISREAD)


def test_free_sizes_need_a_profile(rtx: Library) -> None:
    free, fixed = GOOD["a pair"], GOOD["fixed sizes"]
    assert lint(free, ()) == ["input 'x' has free sizes and no profile"]
    assert lint(free, profile(describe_onnx(free.SerializeToString())[0])) == []
    assert lint(fixed, ()) == []
    assert not accepts(rtx, free, with_profile=False)
    assert accepts(rtx, fixed, with_profile=False)


def test_what_is_slow_or_too_new_is_remarked() -> None:
    for name, model in GOOD.items():
        found = remarks(model)
        if name == "a pair between convolution and relu":
            assert found == [
                "a Q/DQ pair between 'conv' and 'relu' keeps TensorRT from fusing them"
            ]
        elif name in ("opset 21", "opset 23"):
            assert found == [f"it has {name}: TensorRT 10.3 (JetPack 6) reads up to 20"]
        else:
            assert found == []
