"""Write a folder from which a device with TensorRT builds and runs engines without edgedl."""

import json
from collections.abc import Sequence
from pathlib import Path

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import GOLDEN
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.bundle.shape_range import Shape
from edgedl.runtime.tensorrt.build import BuildSettings
from edgedl.runtime.tensorrt.profiles import Sizes

SCRIPT, README, RECORD = "build_and_run.py", "README.md", "package.json"
HERE = Path(__file__).parent


def write_package(
    bundle: Bundle, files: Sequence[tuple[Artifact, BuildSettings]], folder: Path
) -> None:
    """Write the package.

    Args:
        bundle: that has the files; each is verified.
        files: those for TensorRT, and how an engine of each is built.
        folder: an empty one.

    Raises:
        IntegrityError: a file is not what the manifest says.
    """
    for path in dict.fromkeys([GOLDEN, *(artifact.path for artifact, _ in files)]):
        (folder / path).write_bytes(bundle.read(path))
    record = {"name": bundle.manifest.name, "files": [_record(a, s) for a, s in files]}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (folder / SCRIPT).write_bytes((HERE / SCRIPT).read_bytes())
    text = (
        (HERE / "readme.md")
        .read_text()
        .format(
            name=bundle.manifest.name,
            rows="\n".join(_row(a, s) for a, s in files),
            checks="\n".join(f"- `{a.path}`: {a.check or 'not checked'}" for a, _ in files),
            trtexec10="\n".join(_trtexec(a, s, "--stronglyTyped") for a, s in files),
            trtexec11="\n".join(_trtexec(a, s) for a, s in files),
        )
    )
    (folder / README).write_text(text)


def _record(artifact: Artifact, settings: BuildSettings) -> dict[str, object]:
    return {
        "name": artifact.name,
        "path": artifact.path,
        "precision": artifact.precision,
        "inputs": [_tensor(spec) for spec in artifact.inputs],
        "outputs": [_tensor(spec) for spec in artifact.outputs],
        "profile": [
            {"input": sizes.input, **{corner: getattr(sizes, corner) for corner in Sizes._fields}}
            for sizes in settings.profile
        ],
        "tolerances": artifact.golden_tolerances,
        "workspace_mib": settings.workspace_mib,
        "sparse": settings.sparse,
        "dla_core": settings.dla_core,
    }


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "shape": spec.shape,
        "dtype": spec.dtype,
        "mean": spec.mean,
        "std": spec.std,
    }


def _row(artifact: Artifact, settings: BuildSettings) -> str:
    inputs = ", ".join(f"`{spec.name}` {spec.dtype}" for spec in artifact.inputs)
    sizes = "; ".join(
        ", ".join(_shape(getattr(sizes, corner)) for corner in Sizes._fields)
        for sizes in settings.profile
    )
    return f"| `{artifact.path}` | {artifact.precision} | {inputs} | {sizes or 'fixed'} |"


def _trtexec(artifact: Artifact, settings: BuildSettings, *flags: str) -> str:
    """Return one indented line that builds and times an engine."""
    shapes = [
        f"--{corner}Shapes="
        + ",".join(f"{sizes.input}:{_shape(getattr(sizes, corner))}" for sizes in settings.profile)
        for corner in Sizes._fields
        if settings.profile
    ]
    if settings.workspace_mib is not None:
        shapes.append(f"--memPoolSize=workspace:{settings.workspace_mib}")
    if settings.sparse:
        shapes.append("--sparsity=enable")
    if settings.dla_core is not None:
        shapes += [f"--useDLACore={settings.dla_core}", "--allowGPUFallback"]
    engine = f"--saveEngine={artifact.name}.engine"
    return "    " + " ".join(["trtexec", f"--onnx={artifact.path}", engine, *flags, *shapes])


def _shape(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)
