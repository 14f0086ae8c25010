"""A bundle says what every file is, and no changed, added, missing or linked file gets past it."""

import hashlib
import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.runtime.bundle.bundle import Bundle, find_bundle, record_files, write_manifest
from edgedl.runtime.bundle.manifest import FileRecord
from edgedl.runtime.bundle.seal import DIGEST, MANIFEST, write_sealed
from edgedl.runtime.errors import BadInputError, IntegrityError

MODEL = "int8.tflite"
FILES = ("float32.onnx", MODEL, "golden.npz", "encodings.json")


def flip(folder, name=MODEL, at=1000):
    content = bytearray((folder / name).read_bytes())
    content[at % len(content)] ^= 0x10
    (folder / name).write_bytes(content)


def test_good_bundle_verifies(compressed):
    bundle = Bundle.open(compressed.bundle.folder)
    bundle.verify()
    assert bundle == compressed.bundle


def test_manifest_describes_the_files_as_they_are(compressed):
    folder = compressed.bundle.folder
    on_disk = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (MANIFEST, DIGEST)}
    described = compressed.bundle.manifest.files
    assert set(described) == set(on_disk)
    for name, content in on_disk.items():
        assert described[name].size_bytes == len(content)
        assert described[name].sha256 == hashlib.sha256(content).hexdigest()
        assert compressed.bundle.read(name) == content


def test_a_bundle_is_found_in_the_output_folder_around_it(bundle_copy):
    # As ``compress`` writes it: DIR/bundle, with other things beside it.
    around = bundle_copy.parent
    (around / "parent").mkdir()
    assert find_bundle(around) == find_bundle(bundle_copy) == bundle_copy
    found = Bundle.open(around)
    assert found == Bundle.open(bundle_copy)
    found.verify()


def test_a_folder_without_a_bundle_is_refused(refused, tmp_path):
    (tmp_path / "demo" / "bundle").mkdir(parents=True)
    manifest = tmp_path / "demo" / "bundle" / "manifest.json"
    with refused(BadInputError, "neither it nor", str(manifest.parent), "manifest.json"):
        find_bundle(tmp_path / "demo")
    manifest.write_text("{}")
    with refused(BadInputError, f"did you mean '{tmp_path / 'demo'}'?"):
        find_bundle(tmp_path)
    with refused(BadInputError, "no such folder", f"did you mean '{tmp_path / 'demo'}'?"):
        find_bundle(tmp_path / "dmo")
    with refused(BadInputError, "it is a file, not a folder"):
        find_bundle(manifest)


@pytest.mark.parametrize("name", FILES)
def test_corrupt_byte(refused, bundle_copy, name):
    flip(bundle_copy, name)
    bundle = Bundle.open(bundle_copy)
    with refused(IntegrityError, name, "sha256"):
        bundle.read(name)
    with refused(IntegrityError, name, "sha256"):
        bundle.verify()
    for other in set(FILES) - {name}:
        bundle.read(other)


@pytest.fixture(scope="module")
def worn(compressed, tmp_path_factory):
    """A copy of one model file's bundle that many examples damage and repair."""
    folder = tmp_path_factory.mktemp("worn") / "bundle"
    shutil.copytree(compressed.bundle.folder, folder)
    return Bundle.open(folder)


@settings(deadline=None, max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_any_changed_byte_is_found(worn, refused, where, mask):
    path = worn.folder / MODEL
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(where * len(good))] ^= mask
    path.write_bytes(bad)
    try:
        with refused(IntegrityError, MODEL):
            worn.read(MODEL)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_file(refused, bundle_copy, keep):
    path = bundle_copy / MODEL
    path.write_bytes(path.read_bytes()[:keep])
    with refused(IntegrityError, MODEL, "bytes"):
        Bundle.open(bundle_copy).verify()


@pytest.mark.parametrize("extra", [1, 1 << 20])
def test_file_that_grew(refused, bundle_copy, extra):
    path = bundle_copy / MODEL
    path.write_bytes(path.read_bytes() + bytes(extra))
    with refused(IntegrityError, MODEL, "bytes"):
        Bundle.open(bundle_copy).verify()


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"sha256": ""}, {"size_bytes": -1}])
def test_manifest_that_says_something_else(refused, bundle_copy, edit_manifest, change):
    edit_manifest(lambda m: m["files"][MODEL].update(change))
    with refused(IntegrityError, MODEL):
        Bundle.open(bundle_copy).verify()


def swap_for_link(folder):
    """Same bytes, same sha256, but the folder no longer owns them."""
    (folder / MODEL).rename(folder.parent / "outside")
    (folder / MODEL).symlink_to(folder.parent / "outside")


def swap_folder_for_link(folder):
    (folder.parent / "elsewhere").mkdir()
    (folder / "sub").symlink_to(folder.parent / "elsewhere")


def add_in_subfolder(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "extra.bin").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / MODEL).unlink(), (MODEL, "missing")),
        (lambda f: (f / MODEL).rename(f / "renamed.tflite"), (MODEL, "missing")),
        (lambda f: (f / "extra.bin").write_bytes(b"x"), ("extra.bin", "not in the manifest")),
        (lambda f: (f / ".hidden").write_bytes(b""), (".hidden", "not in the manifest")),
        (add_in_subfolder, ("sub/extra.bin", "not in the manifest")),
        (lambda f: (f / "alias").symlink_to(f / MODEL), ("alias", "not in the manifest")),
        (lambda f: (f / "alias").symlink_to("/nowhere"), ("alias", "not in the manifest")),
        (swap_folder_for_link, ("sub", "not in the manifest")),
        (lambda f: os.link(f / MODEL, f / "hard"), ("hard", "not in the manifest")),
        (lambda f: shutil.copy(f / MODEL, f / "manifest.json.bak"), ("manifest.json.bak",)),
    ],
)
def test_listing_that_differs(refused, bundle_copy, damage, words):
    damage(bundle_copy)
    with refused(IntegrityError, *words):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize(
    "damage", [swap_for_link, lambda f: os.link(f / MODEL, f.parent / "outside")]
)
def test_link_to_the_very_same_bytes(refused, bundle_copy, damage):
    damage(bundle_copy)
    bundle = Bundle.open(bundle_copy)
    with refused(IntegrityError, MODEL):
        bundle.read(MODEL)
    with refused(IntegrityError, MODEL):
        bundle.verify()


@pytest.mark.parametrize(
    "path", ["../secret.bin", "sub/../../secret.bin", "{outside}/secret.bin", "", ".", "..", "/"]
)
def test_path_out_of_the_folder(refused, bundle_copy, edit_manifest, path):
    outside = bundle_copy.parent
    (outside / "secret.bin").write_bytes(b"secret")
    (bundle_copy / "sub").mkdir()
    path = path.format(outside=outside)
    record = {"size_bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    edit_manifest(lambda m: m["files"].__setitem__(path, record))
    with refused(IntegrityError, f"'{path}'", "may not"):
        Bundle.open(bundle_copy)


def test_artifact_that_is_not_listed(refused, bundle_copy, edit_manifest):
    edit_manifest(lambda m: m["artifacts"][0].__setitem__("path", "manifest.json"))
    with refused(IntegrityError, "'manifest.json'"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "truncated"),
        (b"not json", "malformed"),
        (b"[]", "object"),
        (b"\x00\x01\x02", "malformed"),
        (b"[" * 100_000, "object"),
        (b'{"name": ' + b"[" * 100_000, "name"),
        (b'{"name": "x"}', "missing"),
    ],
)
def test_manifest_that_is_none(refused, bundle_copy, content, word):
    write_sealed(bundle_copy, content)
    with refused(IntegrityError, "manifest.json", word):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_manifest_cut_short(refused, bundle_copy, share):
    path = bundle_copy / "manifest.json"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with refused(IntegrityError, "does not match manifest.sha256", "copy the bundle again"):
        Bundle.open(bundle_copy)
    (bundle_copy / DIGEST).unlink()
    with refused(IntegrityError, "not a valid manifest"):
        Bundle.open(bundle_copy)


def test_a_changed_byte_of_the_manifest_is_found(refused, bundle_copy):
    # Class names, preprocessing and scales are in no other file.
    path = bundle_copy / "manifest.json"
    good = path.read_bytes()
    for at in range(0, len(good), len(good) // 100):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with refused(IntegrityError, "does not match manifest.sha256"):
            Bundle.open(bundle_copy)


def test_a_manifest_without_its_digest_is_refused_unless_it_is_older(
    refused, bundle_copy, edit_manifest
):
    (bundle_copy / DIGEST).unlink()
    with refused(IntegrityError, "manifest.sha256 is missing"):
        Bundle.open(bundle_copy)
    edit_manifest(lambda m: m.update(schema_version=3))
    (bundle_copy / DIGEST).unlink()
    assert Bundle.open(bundle_copy).manifest.schema_version == 3


def test_files_that_desktops_leave_behind_do_not_matter(bundle_copy):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._manifest.json"):
        (bundle_copy / name).write_bytes(b"left behind")
    Bundle.open(bundle_copy).verify()
    assert set(record_files(bundle_copy)) == set(Bundle.open(bundle_copy).manifest.files)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.update(colour="red"), "colour"),
        (lambda m: m["artifacts"][0].update(run="rm -rf"), "run"),
        (lambda m: m["files"][MODEL].update(md5=""), "md5"),
        (lambda m: m.pop("files"), "files"),
        (lambda m: m.update(schema_version="2"), "schema_version"),
        (lambda m: m["artifacts"][0].update(backend=7), "backend"),
    ],
)
def test_manifest_with_wrong_keys(refused, bundle_copy, edit_manifest, change, word):
    edit_manifest(change)
    with refused(IntegrityError, "not a valid manifest", word):
        Bundle.open(bundle_copy)


def test_manifest_of_another_version_is_not_called_damaged(refused, bundle_copy, edit_manifest):
    edit_manifest(lambda m: m.update(schema_version=1))
    with refused(BadInputError, "a manifest of version 1, this edgedl reads 2, 3, 4", "compress"):
        Bundle.open(bundle_copy)


def test_manifest_of_the_version_before_is_read(bundle_copy, edit_manifest):
    edit_manifest(lambda m: m.update(schema_version=2))
    assert Bundle.open(bundle_copy).manifest.schema_version == 2


def test_manifest_behind_a_link(refused, bundle_copy):
    (bundle_copy / "manifest.json").rename(bundle_copy.parent / "outside")
    (bundle_copy / "manifest.json").symlink_to(bundle_copy.parent / "outside")
    with refused(IntegrityError, "manifest.json", "cannot be opened"):
        Bundle.open(bundle_copy)


def test_manifest_with_a_second_name(refused, bundle_copy):
    os.link(bundle_copy / "manifest.json", bundle_copy.parent / "outside")
    with refused(IntegrityError, "manifest.json", "link"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_bundle(refused, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    with refused(BadInputError, name, "not a bundle"):
        Bundle.open(tmp_path / name)


def test_artifact_by_name(refused, compressed):
    assert compressed.bundle.artifact("tflite-int8").path == MODEL
    names = [a.name for a in compressed.bundle.manifest.artifacts]
    with refused(BadInputError, "'tflite-int4'", *names):
        compressed.bundle.artifact("tflite-int4")


def test_written_manifest_reads_back(bundle_copy, manifest):
    write_manifest(bundle_copy, manifest)
    assert Bundle.open(bundle_copy).manifest == manifest
    json.loads((bundle_copy / "manifest.json").read_text())


def test_record_files_knows_subfolders_and_leaves_the_manifest_out(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("manifest.json", "b.bin", "sub/a.bin"):
        (tmp_path / name).write_bytes(name.encode())
    sha256 = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("b.bin", "sub/a.bin")}
    assert record_files(tmp_path) == {
        "b.bin": FileRecord(5, sha256["b.bin"]),
        "sub/a.bin": FileRecord(9, sha256["sub/a.bin"]),
    }
