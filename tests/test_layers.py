"""Who may import whom, and what may stay unloaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "runtime": {"runtime"},
    "models": {"models", "runtime"},
    "compress": {"compress", "runtime"},
    "tools": {"tools", "compress", "models", "runtime"},
    "benchmarks": {"tools", "compress", "models", "runtime"},
}
# What a device installs; a backend adds exactly its own driver.
DEVICE = {"numpy", "msgspec", "edgedl"}
DRIVERS = {
    "openvino.py": {"openvino"},
    "ort.py": {"onnxruntime"},
    "reference.py": {"onnx"},
    "tflite.py": {"ai_edge_litert"},
    "tflite_runtime.py": {"tflite_runtime"},
}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_rooms_import_only_downwards(folder: str) -> None:
    for path in python_files(folder):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "edgedl" and len(parts) > 1:
                assert parts[1] in ALLOWED[folder], f"{path} imports {name}"
            bare = set(ALLOWED) - ({"benchmarks"} if folder == "benchmarks" else set())
            assert parts[0] not in bare, f"{path} imports the bare folder {name}"


def test_runtime_needs_only_numpy_msgspec_and_one_driver() -> None:
    for path in python_files("runtime"):
        allowed = DEVICE | set(sys.stdlib_module_names)
        if path.parent.name == "backends":
            allowed = allowed | DRIVERS.get(path.name, set())
        elif path.name == "library.py":
            allowed = allowed | {"tensorrt", "tensorrt_rtx"}
        elif path.name == "cuda.py":
            allowed = allowed | {"cuda"}
        elif path.name == "video.py":
            allowed = allowed | {"cv2"}
        elif path.name == "text.py":
            allowed = allowed | {"tokenizers"}
        elif path.name == "signature.py":
            allowed = allowed | {"cryptography"}
        else:
            # Version strings and pictures; each behind a clear error where it is missing.
            allowed = allowed | {"PIL"}
        foreign = {n for n in imports(path) if n.split(".")[0] not in allowed}
        assert not foreign, f"{path} imports {foreign}"


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after some code."""
    script = f"import sys\n{code}\nprint('\\n'.join(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HOST_ONLY = {"torch", "onnx", "yaml", "matplotlib", "jinja2", "onnxruntime", "litert_torch"}


def test_runtime_imports_no_host_package() -> None:
    loaded = loaded_by(
        "import edgedl.runtime.runner, edgedl.runtime.measure.measure, edgedl.runtime.bundle.golden"
    )
    assert not loaded & (HOST_ONLY | {"click"})


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["compress", "--help"], ["train", "--help"], ["data"]],
)
def test_help_and_run_import_no_torch(arguments: list[str]) -> None:
    code = (
        "from edgedl.tools.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert not stop.code, stop.code"
    )
    assert not loaded_by(code) & HOST_ONLY
