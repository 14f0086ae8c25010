"""Load one artifact in a fresh process and run it once.

Run as ``python -m edgedl.runtime.measure.coldstart BUNDLE ARTIFACT THREADS``; prints one line of
JSON.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.measure.amx import REFUSED, refuse_amx


def cold_start(folder: Path, artifact: str, threads: int) -> dict[str, Any]:
    """Return milliseconds to load an artifact (its driver already imported) and to run it once.

    And, in words, which operators of it something else computes.
    """
    bundle = Bundle.open(folder)
    inputs = [x[:1] for x in golden_inputs(bundle)]
    chosen = bundle.artifact(artifact)
    open_backend(chosen.backend).available()
    start = time.perf_counter()
    runner = LoadedModel(bundle, chosen, threads)
    loaded = time.perf_counter()
    runner(*inputs)
    done = time.perf_counter()
    return {
        "load_ms": (loaded - start) * 1e3,
        "first_inference_ms": (done - loaded) * 1e3,
        "fallbacks": [str(fallback) for fallback in runner.session.placement().fallbacks],
    }


if __name__ == "__main__":
    if REFUSED in os.environ:
        refuse_amx()
    print(json.dumps(cold_start(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
