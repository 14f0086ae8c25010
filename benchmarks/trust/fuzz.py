"""Open and run damaged bundles, and count what becomes of them.

Run as ``python -m benchmarks.trust.fuzz [--count N] [--first SEED] [--keep FOLDER]``. Of a signed
bundle of a small network, one file is damaged at a time, for half of the mutants with checksums
made to fit. Each is opened twice: by somebody who trusts the key of the bundle, and by somebody who
asks for no signature. What opens is run on ONNX Runtime and LiteRT, and its answers are compared.
Mutants are tried in child processes, since a runtime may crash. Exit code 1 if a mutant crashed the
process or hung for more than 5 s, if an error was not one of edgedl's own, if one whose checksums
did not fit was opened, or if one was taken for signed.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from benchmarks.trust.mutants import Mutant
from benchmarks.trust.small_bundle import make_bundle
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.bundle.seal import DIGEST, MANIFEST, SIGNATURE, write_signature
from edgedl.runtime.bundle.signature import Trust, sign
from edgedl.runtime.errors import EdgedlError, IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.golden import check_golden
from edgedl.tools.report.table import to_markdown

LIMIT_S = 5
BATCH = 200
FORBIDDEN = ("crash", "hang", "internal error", "opened unverified", "taken for signed")
HEADER = ("what became of it", "checksums do not fit", "checksums fit")


def main() -> int:
    """Print a row for each outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for mutants that must not be")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        bundle, first, journal = options.child
        _try_all(Path(bundle), int(first), options.count, Path(journal))
        return 0
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place) / "bundle"
        make_bundle(bundle)
        _sign(bundle)
        found = _try_in_children(bundle, options.first, options.count, Path(place) / "journal")
    counts = Counter((outcome, mutant.consistent) for mutant, outcome in found)
    kinds = sorted({outcome for outcome, _ in counts})
    print(to_markdown(HEADER, [(k, str(counts[k, False]), str(counts[k, True])) for k in kinds]))
    wrong = [(m, o) for m, o in found if o.startswith(FORBIDDEN)]
    for mutant, outcome in wrong[:20]:
        print(f"{mutant}: {outcome}")
    if options.keep is not None and wrong:
        options.keep.mkdir(parents=True, exist_ok=True)
        seeds = [mutant.seed for mutant, _ in wrong]
        (options.keep / "seeds.json").write_text(json.dumps(seeds))
    return int(bool(wrong))


def _sign(folder: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private = folder.parent / "key"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (folder.parent / "key.pub").write_bytes(public + b" fuzz")
    signature, _ = sign((folder / MANIFEST).read_bytes(), private)
    write_signature(folder, signature)


def _try_in_children(
    bundle: Path, first: int, count: int, journal: Path
) -> list[tuple[Mutant, str]]:
    """Return every mutant and what became of it; a child that ends early is followed by another."""
    paths = _paths(bundle)
    found: list[tuple[Mutant, str]] = []
    while len(found) < count:
        journal.write_text("")
        begin = first + len(found)
        size = min(BATCH, count - len(found))
        command = [sys.executable, "-m", "benchmarks.trust.fuzz", "--count", str(size)]
        child = ["--child", str(bundle), str(begin), str(journal)]
        done = subprocess.run([*command, *child], capture_output=True, text=True, check=False)
        outcomes = [json.loads(line) for line in journal.read_text().splitlines()]
        if not outcomes and done.returncode:
            raise SystemExit(done.stderr)
        found += [(Mutant.of(begin + i, paths), outcome) for i, outcome in enumerate(outcomes)]
        if len(outcomes) < size:
            kind = "hang" if done.returncode == -signal.SIGALRM else f"crash ({done.returncode})"
            found.append((Mutant.of(first + len(found), paths), kind))
        print(f"{len(found)} of {count}", file=sys.stderr)
    return found


def _paths(bundle: Path) -> list[str]:
    """Return the files to damage; those that protect the others stand for themselves."""
    listed = sorted(json.loads((bundle / MANIFEST).read_text())["files"])
    return [MANIFEST, DIGEST, SIGNATURE, *(p for p in listed if not p.endswith(".safetensors"))]


def _try_all(bundle: Path, first: int, count: int, journal: Path) -> None:
    paths, trust = _paths(bundle), Trust.read(bundle.parent / "key.pub")
    expected = _answers(Bundle.open(bundle))
    with journal.open("a") as out, tempfile.TemporaryDirectory() as place:
        for seed in range(first, first + count):
            folder = Path(place) / "mutant"
            shutil.copytree(bundle, folder)
            mutant = Mutant.of(seed, paths)
            signal.alarm(LIMIT_S)
            outcome = _outcome(folder, mutant, trust, expected) if mutant.damage(folder) else "same"
            signal.alarm(0)
            print(json.dumps(outcome), file=out, flush=True)
            shutil.rmtree(folder)


def _outcome(folder: Path, mutant: Mutant, trust: Trust, expected: dict[str, np.ndarray]) -> str:
    try:
        Bundle.open(folder, trust).verify()
    except IntegrityError:
        pass
    except Exception as error:
        return f"internal error: {type(error).__name__} with trust"
    else:
        return "taken for signed"
    try:
        bundle = Bundle.open(folder)
        found = _answers(bundle)
    except EdgedlError as error:
        return f"refused: {type(error).__name__}"
    except Exception as error:
        return f"internal error: {type(error).__name__}"
    if not mutant.consistent and mutant.path != SIGNATURE:
        return "opened unverified"
    return _compared(found, expected)


def _compared(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str:
    if found.keys() != expected.keys():
        return "runs, other files"
    pairs = [(found[name], expected[name]) for name in expected]
    if any(x.shape != y.shape or not np.allclose(x, y, atol=1e-4) for x, y in pairs):
        return "runs, other answers that the golden check lets pass"
    return "runs, the same answers"


def _answers(bundle: Bundle) -> dict[str, np.ndarray]:
    """Verify a bundle as ``verify`` does; return what each file gives on inputs of our own."""
    bundle.verify()
    answers = {}
    for artifact in bundle.manifest.artifacts:
        if artifact.backend not in ("ort", "tflite"):
            continue
        with LoadedModel(bundle, artifact) as model:
            check = check_golden(model)
            if not check.passed:
                raise IntegrityError(f"{artifact.name}: other golden outputs")
            (like,) = golden_inputs(bundle)
            x = np.random.default_rng(0).standard_normal(like.shape).astype(np.float32)
            answers[artifact.name] = model(x)[0]
    return answers


if __name__ == "__main__":
    sys.exit(main())
