"""Array files: what numpy reads is read, what claims more than it has is refused at once."""

import contextlib
import io
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.runtime.bundle.array_file import load_archive, load_arrays

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(compress: bool = True, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def with_shape(content: bytes, shape: bytes) -> bytes:
    """Return a .npy whose header says another shape, of as many characters."""
    old = b"(3, 4), }"
    assert old in content
    return content.replace(old + b" " * (len(shape) + 4 - len(old)), shape + b", }")


@pytest.mark.parametrize(
    "array",
    [X, X.T, X[:, 0], X[0, 0], np.zeros((0, 3)), np.array(["a", "bc"]), X.astype(np.int8)],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_it_reads_what_numpy_writes(tmp_path: Path, array: np.ndarray) -> None:
    (tmp_path / "x.npy").write_bytes(npy(array))
    found = load_arrays(tmp_path / "x.npy")
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    for compress in (False, True):
        read = load_archive(npz(compress, a=array, **{"b/0": X}))
        assert list(read) == ["a", "b/0"]
        np.testing.assert_array_equal(read["a"], array)


@pytest.mark.parametrize("shape", [b"(300000, 400000)", b"(3, 5)", b"(2**62, 9)"])
def test_a_header_that_says_more_than_there_is(shape: bytes) -> None:
    content = with_shape(npy(X), shape)
    for source in (content, npz_of(content)):
        with pytest.raises(ValueError, match=r"more than the file has|Cannot parse header"):
            load_arrays(io.BytesIO(source))


def npz_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    return buffer.getvalue()


BOMB = """
import sys, zipfile, resource
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open("x.npy", "w", force_zip64=True) as member:
        import numpy as np
        header = {"descr": "<f4", "fortran_order": False, "shape": (300 << 20,)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(300):
            member.write(bytes(4 << 20))
"""


def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    subprocess.run([sys.executable, "-c", BOMB, str(path)], check=True)
    assert path.stat().st_size < 10 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="its arrays take 1200 MB, at most 1024 MB are read"):
        load_arrays(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_whole_before_it_is_cut_is_refused(kind: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("x.npy", npy(X))
    with pytest.raises(ValueError, match="'x' is packed in a way that numpy does not use"):
        load_arrays(buffer)


def test_only_the_wanted_arrays_are_read() -> None:
    other = np.array([{"about": "x"}], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, x=X, other=other)
    found = load_arrays(buffer, ["x"])
    assert isinstance(found, dict)
    assert list(found) == ["x"]
    np.testing.assert_array_equal(found["x"], X)
    with pytest.raises(ValueError, match="Object arrays"):
        load_arrays(buffer, ["x", "y"])


@pytest.mark.parametrize(
    "header", [b"{1, []}", b"{'descr': '<f4', 'fortran_order': 0, 'shape': 3}"]
)
def test_a_header_that_describes_no_array(header: bytes) -> None:
    body = header.ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body
    with pytest.raises(ValueError, match=r"."):
        load_arrays(io.BytesIO(content))


def test_objects_are_never_built(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for content in (buffer.getvalue(), npz_of(buffer.getvalue())):
        with pytest.raises(ValueError, match=r"allow_pickle|Object arrays|more than the file has"):
            load_arrays(io.BytesIO(content))


def test_a_single_array_is_no_archive() -> None:
    with pytest.raises(ValueError, match="a single array"):
        load_archive(npy(X))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), archive=st.booleans())
def test_damage_raises_nothing_else(data: st.DataObject, archive: bool) -> None:
    content = bytearray(npz(a=X) if archive else npy(X))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(ValueError, OSError):
        load_arrays(io.BytesIO(bytes(content[:cut])))
