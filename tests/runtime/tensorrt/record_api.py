"""Record the Python API of a TensorRT wheel: classes, members, signatures, members of enums.

Run as ``python record_api.py MODULE_FILE > api/NAME.json``, with the compiled module of a bindings
wheel from PyPI (tensorrt-bindings 8.6.1, tensorrt-cu12-bindings 10.3.0 and 10.16.1,
tensorrt-cu13-bindings 11.4.0) or of an installed tensorrt-rtx. The module wants NVIDIA's libraries
only when an object is made: empty ones that define the ten functions that ``nm -D
--undefined-only`` lists will do.
"""

import importlib.util
import inspect
import json
import re
import sys
from typing import Any

CLASSES = (
    "Builder",
    "BuilderFlag",
    "ComputeCapability",
    "DataType",
    "DeviceType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProfiler",
    "IProgressMonitor",
    "ITimingCache",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((.*)\) -> (.+)$")


def record(module: Any) -> dict[str, Any]:
    """Return class by class: members of an enum, or its base and members with their signatures.

    A property has none; a method with several has them all.
    """
    found = {}
    for name in CLASSES:
        kind = getattr(module, name, None)
        if kind is None:
            continue
        enum = getattr(kind, "__members__", None)
        if enum is not None:
            found[name] = {"members": {key: int(value) for key, value in enum.items()}}
            continue
        members = {}
        for member in dir(kind):
            if member.startswith("_") and member != "__init__":
                continue
            value = inspect.getattr_static(kind, member)
            lines = [] if isinstance(value, property) else (getattr(kind, member).__doc__ or "")
            members[member] = [
                line.strip()
                for line in (lines.splitlines() if isinstance(lines, str) else lines)
                if SIGNATURE.match(line.strip())
            ]
        found[name] = {"has": members, "base": kind.__base__.__name__}
    return found


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location(sys.argv[2], sys.argv[1])
    opened = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(opened)
    json.dump(record(opened), sys.stdout, indent=0, sort_keys=True)
