"""The child process that builds an engine.

Run as ``python -m edgedl.runtime.tensorrt.build_process FOLDER``. It reads ``settings.json``,
``model.onnx`` and ``timings`` there and writes ``built.msgpack``. On stdout it prints JSON objects:
the share that is done, and at the end why there is no engine, or that there is one.
"""

import json
import sys
from pathlib import Path

import msgspec

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.tensorrt.build import BuildSettings, build
from edgedl.runtime.tensorrt.library import open_library

MODEL, SETTINGS, TIMINGS, BUILT = "model.onnx", "settings.json", "timings", "built.msgpack"


def main(folder: Path) -> None:
    """Build, and say what became of it."""
    settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=BuildSettings)
    told = -1

    def tell(share: float) -> None:
        nonlocal told
        if int(100 * share) > told:
            told = int(100 * share)
            print(json.dumps({"share": share}), flush=True)

    try:
        library = open_library(settings.library)
        timings = (folder / TIMINGS).read_bytes()
        built = build(library, (folder / MODEL).read_bytes(), settings, timings, tell)
    except (BadInputError, BackendUnavailableError) as error:
        print(json.dumps({"error": type(error).__name__, "reason": str(error)}), flush=True)
        return
    (folder / BUILT).write_bytes(msgspec.msgpack.encode(built))
    print(json.dumps({"version": library.version}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
