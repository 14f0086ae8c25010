"""What a bundle's manifest says of the network, and of the tools that made it."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import fx

import edgedl
from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.lengths import free_output_axes
from edgedl.compress.stage import ModelState
from edgedl.runtime.bundle import record_files
from edgedl.runtime.manifest import Artifact, Manifest, TaskRecord, TensorSpec

TOOLCHAIN = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "litert-torch",
    "litert-quantizer",
    "ai-edge-litert",
    "tensorrt-rtx",
    "numpy",
)


def describe(state: ModelState, artifacts: list[Artifact], folder: Path) -> Manifest:
    """Return the manifest of a bundle whose files are written."""
    subject = state.subject
    free_outputs = free_output_axes(state.graph, subject.example_inputs(), subject.free_axes)
    return Manifest(
        name=subject.name,
        task=TaskRecord(subject.task.name, subject.task.metric, tuple(subject.task.classes)),
        inputs=tuple(_logical(n, subject.free_axes) for n in input_nodes(state.graph)),
        outputs=tuple(
            _logical(n, axes)
            for n, axes in zip(output_nodes(state.graph), free_outputs, strict=True)
        ),
        preprocessing=subject.task.preprocessing,
        artifacts=tuple(artifacts),
        files=record_files(folder),
        history=state.history,
        toolchain=toolchain(),
        licence=subject.licence,
        data=subject.data,
    )


def _logical(node: fx.Node, free_axes: tuple[int, ...]) -> TensorSpec:
    """Describe an input or output of the graph, None where its size is free."""
    value = node.meta["val"]
    shape = tuple(None if i in free_axes else int(d) for i, d in enumerate(value.shape))
    return TensorSpec.of(node.name, shape, str(np.dtype(str(value.dtype).removeprefix("torch."))))


def toolchain() -> dict[str, str]:
    """Return the versions of everything that has a hand in the files."""
    versions = {"edgedl": edgedl.__version__, "torch_threads": str(torch.get_num_threads())}
    for package in TOOLCHAIN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
