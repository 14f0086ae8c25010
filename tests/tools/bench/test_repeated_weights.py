"""What is said of files whose weights repeat."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from measured import candidate
from msgspec.structs import replace

from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.precision import FLOAT16, FLOAT32, INT8
from edgedl.tools.bench.recommend import recommend
from edgedl.tools.bench.repeated_weights import repetition_of, zipped_bytes


def test_the_last_stage_that_makes_weights_repeat_is_described() -> None:
    sparse = HistoryEntry("sparsify", {"measured_sparsity": 0.4967, "pattern": "2:4"})
    shared = HistoryEntry("cluster_weights", {"bits": 5, "entropy_bits": ("a=4.1", "b=3.9")})
    tuned = HistoryEntry("fine_tune", {})
    assert repetition_of([tuned], FLOAT32) == ""
    zeros = "50 % of its weights are zero"
    assert repetition_of([sparse, tuned], INT8) == zeros
    values = "2 of its layers have at most 32 different weights each"
    assert repetition_of([sparse, shared], FLOAT16) == values
    assert repetition_of([sparse, shared], INT8) == zeros


@pytest.mark.parametrize("size", [0, 1000, (1 << 20) + 17])
def test_the_size_is_that_of_a_zip_archive(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(0).integers(0, 9, size, np.uint8).tobytes()
    path = tmp_path / "file"
    path.write_bytes(content)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        out.writestr("file", content)
    expected = zipfile.ZipFile(archive).getinfo("file").compress_size
    # A stream of its own has a header of two bytes and a checksum of four.
    assert zipped_bytes(path) == expected + 6


def test_a_sparse_file_gains_size_and_what_it_gains_in_time_is_measured() -> None:
    baseline = candidate("parent:ort-float32", (1.0, 1.0))
    sparse = replace(
        candidate("ort-float32", (0.99, 1.05), size=400_000),
        repeated_weights="50 % of its weights are zero",
        zipped_bytes=210_000,
    )
    (note,) = recommend([baseline, sparse], None).notes
    assert note == (
        "ort-float32: 50 % of its weights are zero, which saves space in a zip file "
        "(210.0 KB instead of 400.0), but it is not faster: [0.99, 1.05] of its parent's time on "
        "the same runtime"
    )
    faster = replace(sparse, speedup=candidate("ort-float32", (0.7, 0.8)).speedup)
    assert ", and it is faster: [0.70, 0.80]" in recommend([baseline, faster], None).notes[0]
    int8 = replace(sparse, precision="int8")
    assert "time" not in recommend([baseline, int8], None).notes[0]
