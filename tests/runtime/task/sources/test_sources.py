"""Data by name: what is read, what is assumed, and what is refused in one line."""

import csv

import numpy as np
import pytest
from PIL import Image

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.sources.open_source import open_source
from edgedl.runtime.task.sources.source_task import SourceTask


def all_of(split):
    batches = list(split)
    assert len(batches) == len(split)
    return np.concatenate([b.inputs[0] for b in batches]), np.concatenate(
        [b.labels for b in batches]
    )


def picture(path, seed, mode="RGB", size=(20, 16)):
    """Write a picture of four by four patches."""
    shape = (4, 4) if mode == "L" else (4, 4, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for number in range(20):
        picture(root / "cat" / f"{number}.png", number, ("RGB", "L", "RGBA")[number % 3])
        picture(root / "dog" / f"{number}.png", 100 + number, size=(10 + number, 30))
    (root / "dog" / "notes.txt").write_text("no picture")
    return root


def test_a_folder_for_each_class(folder):
    source = open_source(f"imagefolder:{folder}?size=8&mean=0.5,0.5,0.5&std=0.25,0.25,0.25")
    assert source.classes == ("cat", "dog")
    parts = {name: all_of(split) for name, split in source.splits.items()}
    assert {name: len(x) for name, (x, _) in parts.items()} == {
        "train": 28, "calibration": 28, "selection": 4, "test": 8,
    }  # fmt: skip
    x, labels = parts["test"]
    assert x.shape == (8, 3, 8, 8)
    assert sorted(labels) == [0] * 4 + [1] * 4
    with Image.open(folder / "cat" / "0.png") as opened:
        small = opened.resize((8, 8), Image.Resampling.BILINEAR)
    wanted = ((np.asarray(small) / 255 - 0.5) / 0.25).transpose(2, 0, 1)
    every = np.concatenate([parts[s][0] for s in ("train", "selection", "test")])
    assert np.abs(every - wanted).max((1, 2, 3)).min() < 1e-4


def test_what_is_assumed_is_said(folder):
    notes = " ".join(open_source(f"imagefolder:{folder}?size=8").notes)
    assert "not normalised" in notes
    assert "divided into 8 test, 4 selection, 28 train, of which 28 calibrate" in notes


def test_pictures_that_look_alike_are_in_one_split(folder):
    for number in range(15):
        with Image.open(folder / "cat" / "0.png") as opened:
            opened.resize((60 + number, 48 + number), 0).save(folder / "cat" / f"{number}.bmp")
    source = open_source(f"images:{folder}?size=8")
    assert any("look alike" in note for note in source.notes)
    with Image.open(folder / "cat" / "0.png") as opened:
        wanted = np.asarray(opened.resize((8, 8), Image.Resampling.BILINEAR)) / 255
    near = {}
    for name in ("train", "selection", "test"):
        x = np.concatenate([b.inputs[0] for b in source.splits[name]])
        near[name] = int((np.abs(x - wanted.transpose(2, 0, 1)).mean((1, 2, 3)) < 0.1).sum())
    assert sorted(near.values()) == [0, 0, 16]


def test_folders_of_splits(folder, tmp_path):
    root = tmp_path / "divided"
    for part, begin in (("train", 0), ("val", 1000), ("test", 2000)):
        for name in ("a", "b"):
            for number in range(6):
                picture(root / part / name / f"{number}.png", begin + number + ord(name))
    source = open_source(f"imagefolder:{root}?size=8")
    sizes = {name: sum(len(b.labels) for b in split) for name, split in source.splits.items()}
    assert sizes == {"train": 12, "calibration": 12, "selection": 12, "test": 12}
    for file in (root / "test").rglob("*.png"):
        file.unlink()
    (root / "test" / "a").rmdir()
    (root / "test" / "b").rmdir()
    (root / "test").rmdir()
    source = open_source(f"imagefolder:{root}?size=8")
    assert set(source.splits) == {"train", "calibration", "test"}
    assert any("for validation are scored" in note for note in source.notes)
    (root / "val").rename(tmp_path / "elsewhere")
    source = open_source(f"imagefolder:{root}?size=8")
    assert {"train", "calibration", "test"} <= set(source.splits)
    (root / "train").rename(root / "test")
    with pytest.raises(BadInputError, match="none of training pictures"):
        open_source(f"imagefolder:{root}?size=8")


def test_bad_folders(folder, tmp_path, refused):
    with refused(BadInputError, "no folder", "nowhere"):
        open_source("imagefolder:nowhere?size=8")
    with refused(BadInputError, "size", "?size=224"):
        open_source(f"imagefolder:{folder}")
    one = tmp_path / "one"
    picture(one / "cat" / "0.png", 0)
    with refused(BadInputError, "one class alone, 'cat'", "images:"):
        open_source(f"imagefolder:{one}?size=8")
    (one / "dog").mkdir()
    with refused(BadInputError, "the class 'dog'", "no pictures"):
        open_source(f"imagefolder:{one}?size=8")
    with refused(BadInputError, "holds no pictures"):
        open_source(f"images:{one / 'dog'}?size=8")
    (folder / "dog" / "broken.png").write_bytes(b"no picture")
    with refused(BadInputError, "broken.png"):
        open_source(f"imagefolder:{folder}?size=8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pictures", "KIND:PATH"),
        ("imagefoldr:x", "did you mean 'imagefolder'"),
        ("images:", "no file or folder"),
        ("images:x?sise=8", "did you mean 'size'"),
        ("images:x?size=8&size=9", "given twice"),
        ("images:x?size=", "without a value"),
        ("images:x?size", "no options"),
    ],
)
def test_names_that_are_none(text, says, refused):
    with refused(BadInputError, says):
        open_source(text)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("size=-1", "whole number"),
        ("size=8&mean=a", "numbers such as"),
        ("size=8&resize=zoom", "resize is 'zoom'"),
        ("size=8&mean=0.5", "mean needs 3 values"),
    ],
)
def test_options_that_mean_nothing(folder, options, says, refused):
    with refused(BadInputError, says):
        open_source(f"images:{folder}?{options}")


def write_table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    rows = [[i, i / 2, -i, ("low", "high")[i > 50], f"id{i}"] for i in range(100)]
    return write_table(tmp_path / "table.csv", ["a", "b", "c", "kind", "id"], rows)


def test_a_table_of_classes(table):
    source = open_source(f"csv:{table}?target=kind&drop=id")
    assert source.classes == ("high", "low")
    parts = [all_of(source.splits[name]) for name in ("train", "selection", "test")]
    x, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert (x.shape, x.dtype) == ((100, 3), np.float32)
    np.testing.assert_array_equal(labels, (x[:, 0] <= 50).astype(int))
    np.testing.assert_array_equal(x[:, 1], x[:, 0] / 2)


def test_a_table_of_numbers(table):
    source = open_source(f"csv:{table}?target=c&drop=id,kind")
    x, labels = all_of(source.splits["test"])
    assert (source.classes, labels.shape) == ((), (len(x), 1))
    np.testing.assert_array_equal(labels[:, 0], -x[:, 0])


def test_rows_with_gaps(table, refused):
    text = table.read_text().replace("\n7,", "\n,")
    table.write_text(text)
    with refused(BadInputError, "column 'a'", "line 9", "gaps=drop"):
        open_source(f"csv:{table}?target=kind&drop=id")
    source = open_source(f"csv:{table}?target=kind&drop=id&gaps=drop")
    assert "1 row with gaps" in " ".join(source.notes)
    assert (
        sum(len(b.labels) for s in ("train", "selection", "test") for b in source.splits[s]) == 99
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("target=kind", "'id0', no number"),
        ("target=kinds&drop=id", "did you mean 'kind'"),
        ("target=kind&drop=a,b,c,id", "no column of features"),
        ("target=a&drop=id,kind&gaps=fill", "gaps is 'fill'"),
    ],
)
def test_bad_columns(table, options, says, refused):
    with refused(BadInputError, says):
        open_source(f"csv:{table}?{options}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no rows"),
        ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a,b\n1,2,3\n", "line 2, has 3 values"),
        ("a,b\n1,inf\n", "finite"),
        ("a,b\n" + "1,x\n" * 30, "one class alone"),
    ],
)
def test_bad_tables(tmp_path, content, says, refused):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with refused(BadInputError, says):
        open_source(f"csv:{path}?target=b")


def test_arrays(tmp_path, refused):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(50) % 2)
    source = open_source(f"npz:{tmp_path / 'data.npz'}")
    found, labels = all_of(source.splits["test"])
    rows = [int(np.flatnonzero((x == row).all(1))[0]) for row in found]
    np.testing.assert_array_equal(labels, np.asarray(rows) % 2)
    with refused(BadInputError, "no array 'z'", "x, y"):
        open_source(f"npz:{tmp_path / 'data.npz'}?labels=z")
    np.savez(tmp_path / "bad.npz", x=x, y=np.arange(49))
    with refused(BadInputError, "different lengths: x 50, y 49"):
        open_source(f"npz:{tmp_path / 'bad.npz'}")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04")
    with refused(BadInputError, "not a readable array file"):
        open_source(f"npz:{tmp_path / 'torn.npz'}")


def test_as_a_task(table, folder, refused):
    task = SourceTask(open_source(f"csv:{table}?target=kind&drop=id"))
    assert (task.metric, task.classes) == ("top1", ("high", "low"))
    sizes = [len(b.labels) for b in task.batches("train", 30)]
    assert sizes == [30, 30, 10]
    numbers = SourceTask(open_source(f"csv:{table}?target=c&drop=id,kind"))
    labels = np.concatenate([b.labels for b in numbers.batches("test", 7)])
    assert numbers.metric == "r2"
    assert numbers.score([labels], labels).mean() == 1.0
    with refused(BadInputError, "no labels"):
        SourceTask(open_source(f"images:{folder}?size=8"))
