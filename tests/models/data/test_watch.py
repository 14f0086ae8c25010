"""The smart-watch data set: a small file as its authors pickled it, its wheel, hostile files."""

import hashlib
import io
import os
import pickle
import shutil
import tempfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import steps_to

from edgedl.models.data.canonical import WATCH_TEST_SUBJECTS, watch_from_npy
from edgedl.models.data.datasets import DATASETS
from edgedl.models.data.packages import fetch_watch
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.progress import SILENT

PEOPLE = (1, 2, 8, 3, 9, 10, 4, 8, 5)


def content_of(subjects=PEOPLE, channels=6):
    """Return what the file holds: recording i has i + 2 rows, all of value i, and label i % 7."""
    series = np.empty(len(subjects), object)
    for i in range(len(subjects)):
        series[i] = np.full((i + 2, channels), i, np.float64)
    labels = np.arange(len(subjects)) % 7
    return {"X": series, "y": labels, "subject": np.array(subjects), "X_labels": ["a", "b"]}


def npy(pickled):
    """Return a .npy file of one object whose pickle is given."""
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + pickled


def saved(content, protocol=4):
    return npy(pickle.dumps(np.array(content, object), protocol=protocol))


def by_old_numpy(content):
    """Name numpy's modules as numpy 1 did; protocol 2 ends a name with a line break."""
    return npy(pickle.dumps(np.array(content, object), 2).replace(b"numpy._core.", b"numpy.core."))


def by_numpy_save(content):
    out = io.BytesIO()
    np.save(out, content, allow_pickle=True)
    return out.getvalue()


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a file of this content in a folder below the one named."""

    def write_and_read(raw):
        (tmp_path / "set" / "data").mkdir(parents=True)
        (tmp_path / "set" / "data" / "watch_dataset.npy").write_bytes(raw)
        return watch_from_npy(tmp_path / "set", SILENT)

    return write_and_read


def check_split(split, subjects, wanted):
    """Compare one split with the recordings of ``content_of`` whose person is wanted."""
    places = [i for i in range(len(subjects)) if wanted(subjects[i])]
    assert split.subjects.tolist() == [subjects[i] for i in places]
    assert split.labels.tolist() == [i % 7 for i in places]
    assert split.lengths.tolist() == [i + 2 for i in places]
    assert split.values.dtype == np.float32
    for place, recording in zip(places, split.recordings(), strict=True):
        np.testing.assert_array_equal(recording, np.full((place + 2, 6), place))


@pytest.mark.parametrize("write", [saved, by_old_numpy, by_numpy_save])
@pytest.mark.filterwarnings("ignore:numpy.core.multiarray is deprecated:DeprecationWarning")
def test_watch_from_npy(read, write):
    splits = read(write(content_of()))
    assert set(splits) == {"train", "test"}
    check_split(splits["train"], PEOPLE, lambda person: person not in (8, 9, 10))
    check_split(splits["test"], PEOPLE, lambda person: person in (8, 9, 10))


def test_progress_is_told(tmp_path):
    (tmp_path / "watch_dataset.npy").write_bytes(saved(content_of()))
    told = []
    watch_from_npy(tmp_path, steps_to(told.append))
    assert told == ["read watch_dataset.npy"]


def test_recordings_of_the_same_length(read):
    # numpy stacks them into one array [R, T, C] instead of an array of objects.
    content = {"X": np.ones((2, 5, 6)), "y": np.array([3, 4]), "subject": np.array([1, 8])}
    splits = read(saved(content))
    assert splits["train"].values.shape == splits["test"].values.shape == (5, 6)


@settings(deadline=None, max_examples=25)
@given(people=st.lists(st.integers(1, 12), min_size=0, max_size=12), order=st.randoms())
def test_no_person_is_in_both_splits(tmp_path_factory, people, order):
    people = [*people, 1, 8]  # both splits hold somebody
    order.shuffle(people)
    folder = tmp_path_factory.mktemp("watch")
    (folder / "watch_dataset.npy").write_bytes(saved(content_of(people)))
    splits = watch_from_npy(folder, SILENT)
    train, test = (set(splits[name].subjects.tolist()) for name in ("train", "test"))
    assert not train & test
    assert test <= {8, 9, 10} == set(WATCH_TEST_SUBJECTS)
    check_split(splits["train"], people, lambda person: person not in (8, 9, 10))
    check_split(splits["test"], people, lambda person: person in (8, 9, 10))


def without(key):
    return {k: v for k, v in content_of().items() if k != key}


def broken():
    """Return files that are no smart-watch data set."""
    good, content = saved(content_of()), content_of()
    return {
        "empty": b"",
        "text": b"not an array",
        "magic only": good[:6],
        "header only": good[:128],
        "cut": good[:-40],
        "half": good[: len(good) // 2],
        "last byte": good[:-1],
        "no pickle": npy(b"1234567890"),
        "numbers": by_numpy_save(np.ones((3, 4))),
        "a list": saved([1, 2, 3]),
        "no dict": npy(pickle.dumps(7)),
        "no X": saved(without("X")),
        "no y": saved(without("y")),
        "no subject": saved(without("subject")),
        "no recordings": saved({"X": [], "y": [], "subject": []}),
        "few labels": saved({**content, "y": content["y"][:-1]}),
        "few subjects": saved({**content, "subject": content["subject"][1:]}),
        "words": saved({**content, "y": np.array(["a"] * len(PEOPLE))}),
        "vectors": saved({**content, "X": [np.ones(5)] * len(PEOPLE)}),
        "mixed channels": saved({**content, "X": [*content["X"][:-1], np.ones((4, 5))]}),
        "an empty recording": saved({**content, "X": [*content["X"][:-1], np.ones((0, 6))]}),
        "a zip": b"PK\x03\x04" + bytes(60),
    }


@pytest.mark.parametrize("kind", sorted(broken()))
def test_file_that_is_not_the_data_set(refused, read, kind):
    with refused(BadInputError, "watch_dataset.npy", "is not the smart-watch data set"):
        read(broken()[kind])


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_file_cut_anywhere_is_refused(refused, tmp_path_factory, share):
    raw = saved(content_of((1, 8)))
    folder = tmp_path_factory.mktemp("watch")
    (folder / "watch_dataset.npy").write_bytes(raw[: int(share * len(raw))])
    with refused(BadInputError, "is not the smart-watch data set"):
        watch_from_npy(folder, SILENT)


class Reduced:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil(marker):
    """Return files whose loading would leave a file behind, or run somebody's code."""
    command = f"touch {marker}"
    call = Reduced(os.system, command)
    inside = np.empty(2, object)
    inside[:] = [np.ones((2, 6)), call]
    return {
        "os.system": npy(pickle.dumps(call)),
        "exec": npy(pickle.dumps(Reduced(exec, f"open({str(marker)!r}, 'w')"))),
        "protocol 0": npy(b"cos\nsystem\n(V" + command.encode() + b"\ntR."),
        "instance": npy(b"(S'" + command.encode() + b"'\nios\nsystem\n."),
        "inside the dict": saved({**content_of(), "note": call}),
        "inside X": saved({**content_of(), "X": inside}),
        "by numpy": by_numpy_save({"X": call}),
        "numpy.load": npy(pickle.dumps(Reduced(np.load, str(marker)))),
        "method of an array": npy(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."),
        "getattr": npy(b"c__builtin__\ngetattr\n(cnumpy\nndarray\nVtofile\ntR."),
    }


@pytest.mark.parametrize("kind", sorted(evil("x")))
def test_evil_pickle_is_refused_and_not_run(refused, read, tmp_path, kind):
    words = ("watch_dataset.npy", "UnpicklingError", "has no place in a data file")
    with refused(BadInputError, *words):
        read(evil(tmp_path / "ran")[kind])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make_folder", [True, False])
def test_file_that_is_missing(refused, tmp_path, make_folder):
    folder = tmp_path / "set"
    if make_folder:
        (folder / "watch_dataset.npy").mkdir(parents=True)
    with refused(BadInputError, "no file 'watch_dataset.npy'", str(folder)):
        watch_from_npy(folder, SILENT)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Return a function that makes a wheel and a script named pip that delivers it."""
    folder, temporary = tmp_path / "bin", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    (folder / "cp").symlink_to(shutil.which("cp"))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def pack(members):
        with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        script = folder / "pip"
        script.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/asked"\n'
            f'cp "{tmp_path}/a.whl" ./seglearn-1.2.5-py3-none-any.whl\n'
        )
        script.chmod(0o755)
        sha256 = hashlib.sha256((tmp_path / "a.whl").read_bytes()).hexdigest()
        return replace(DATASETS["watch"].package, sha256=sha256)

    return pack


INSIDE = "seglearn/data/watch_dataset.npy"


def test_watch_from_its_wheel(tmp_path, wheel):
    package = wheel({"seglearn/__init__.py": b"raise SystemExit", INSIDE: saved(content_of())})
    told = []
    splits = fetch_watch(package, steps_to(told.append))
    check_split(splits["train"], PEOPLE, lambda person: person not in (8, 9, 10))
    check_split(splits["test"], PEOPLE, lambda person: person in (8, 9, 10))
    # "download" of a wheel alone: nothing is built, installed or run.
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "download"
    assert {"--no-deps", "--only-binary", ":all:", "seglearn==1.2.5"} <= set(asked)
    assert [line.split()[0] for line in told] == ["download", "verify", "unpack", "read"]
    assert not list((tmp_path / "temporary").iterdir())


def test_member_that_climbs_out_stays_inside(tmp_path, wheel):
    evil_names = ("../climbed.txt", "a/../../../climbed.txt", f"{tmp_path}/climbed.txt")
    package = wheel({**dict.fromkeys(evil_names, b"x"), INSIDE: saved(content_of())})
    assert len(fetch_watch(package, SILENT)["test"]) == 4
    assert not list(tmp_path.rglob("climbed.txt"))


def test_wheel_with_another_sha256(refused, tmp_path, wheel):
    wheel({INSIDE: evil(tmp_path / "ran")["os.system"]})
    pinned = DATASETS["watch"].package
    with refused(IntegrityError, "seglearn-1.2.5-py3-none-any.whl", pinned.sha256):
        fetch_watch(pinned, SILENT)
    assert not list((tmp_path / "temporary").iterdir())


def test_evil_pickle_in_the_wheel(refused, tmp_path, wheel):
    package = wheel({INSIDE: evil(tmp_path / "ran")["os.system"]})
    with refused(BadInputError, "watch_dataset.npy", "system"):
        fetch_watch(package, SILENT)
    assert not (tmp_path / "ran").exists()


def test_wheel_without_the_file(refused, wheel):
    with refused(BadInputError, "no file 'watch_dataset.npy'"):
        fetch_watch(wheel({"seglearn/__init__.py": b""}), SILENT)


def test_missing_pip(refused, tmp_path, wheel):
    package = wheel({INSIDE: saved(content_of())})
    (tmp_path / "bin" / "pip").unlink()
    with refused(BackendUnavailableError, "'pip' is not installed", "seglearn", "data import"):
        fetch_watch(package, SILENT)
