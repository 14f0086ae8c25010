"""``edgedl run``: inference on a bundle, with the device's packages only."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
import msgspec
import numpy as np

from edgedl.runtime.bundle.manifest import Manifest
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.generate import Generation, Sampling
from edgedl.runtime.policy import POLICIES, Policy
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck.saturation import saturation
from edgedl.runtime.stream import DROPS, Drop
from edgedl.runtime.task.video import is_live
from edgedl.runtime.tensors import Floats
from edgedl.runtime.wording import counted
from edgedl.tools.terminal.parameter_types import BACKEND, BUNDLE
from edgedl.tools.terminal.trust import describe_trust, trust_options


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--input",
    "where",
    help="Picture, .wav, .txt, .csv, .npy/.npz, folder, video, camera:0, or -.",
)
@click.option("--prompt", help="Text that a language model goes on with, instead of --input.")
@click.option(
    "--tokens", default=100, show_default=True, type=click.IntRange(1), help="Tokens to write."
)
@click.option(
    "--temperature",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="0 writes the most probable token each time, 1 draws as the network says.",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw one of the K most probable tokens.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of draws.")
@click.option("--backend", type=BACKEND, help="ort or tflite, say [the recommended one].")
@click.option("--artifact", help="An artifact by name, for example tflite-int8.")
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="Where what is asked for cannot run: fail; the next best, with a warning; the next best "
    "[require if an artifact or a backend is named, else prefer].",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--top", default=3, show_default=True, type=click.IntRange(1), help="Classes to print."
)
@click.option(
    "--drop",
    type=click.Choice(DROPS),
    help="What is given up where more comes than is computed [wait; of a camera oldest].",
)
@click.option("--fps", type=click.FloatRange(0, min_open=True), help="Inputs a second to take.")
@click.option(
    "--stall",
    type=click.FloatRange(0, min_open=True),
    help="Most seconds without an input.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per sample.")
@trust_options
def command(
    bundle: Path,
    where: str | None,
    prompt: str | None,
    tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    backend: str | None,
    artifact: str | None,
    policy: Policy | None,
    threads: int,
    top: int,
    drop: Drop | None,
    fps: float | None,
    stall: float | None,
    as_json: bool,
    trust: Trust | None,
) -> None:
    """Run BUNDLE on pictures, sounds, texts, sensor rows or arrays; have it write text.

    BUNDLE is a bundle's folder or the output folder of 'edgedl compress'.

    Pictures and uint8 arrays [N, H, W, C] go through the bundle's own preprocessing; the rows of
    a CSV file are split into the windows that the network was trained on, a .wav file into clips; a
    .txt file has a sample in each line; float32 arrays are the network's input. A video, a camera
    or an rtsp:// address gives one picture after another. On stdin ("-") come paths, or arrays as
    .npy one behind the other.

    A language model writes what follows --prompt, or the text of the .txt file that --input names.
    """
    if (where is None) == (prompt is None):
        raise click.UsageError("Give --input, or --prompt for a language model.")
    sampling = Sampling(temperature, top_k, seed)
    with (
        _warnings_as_lines(),
        Runner.open(bundle, artifact, backend, threads, trust, policy) as runner,
    ):
        manifest = runner.bundle.manifest
        where_run = _say_what_runs(runner, describe_trust(runner.bundle, trust), as_json)
        if where is None or manifest.states:
            text = prompt if prompt is not None else _read_prompt(manifest, where)
            _write(Generation(runner, text, tokens, sampling), where_run, as_json)
            return
        drop = drop or ("oldest" if is_live(where) else "wait")
        dropped = 0
        for streamed in runner.stream(where, drop, fps, stall):
            item, outputs, dropped = streamed.item, streamed.answer, streamed.dropped
            for index in range(len(outputs[0])):
                source = item.name(index)
                sample = tuple(y[index] for y in outputs)
                click.echo(_as_json(source, sample, runner, top, where_run) if as_json
                           else f"{source}: {_as_text(sample, manifest, top)}")  # fmt: skip
        if dropped:
            click.echo(f"{counted(dropped, 'input')} dropped", err=True)


def _read_prompt(manifest: Manifest, where: str | None) -> str:
    """Return the text of a file.

    Raises:
        BadInputError: it is none that the network takes, or the network takes no text.
    """
    characters = manifest.preprocessing
    if where is None or not isinstance(characters, CharacterPreprocessing):
        raise BadInputError(f"{manifest.name} has a state and takes no files: use edgedl.Steps")
    return characters.read(Path(where))


def _write(generation: Generation, where_run: Mapping[str, object], as_json: bool) -> None:
    """Print what a language model writes while it does, and how fast that was."""
    if not as_json:
        click.echo(generation.prompt, nl=False)
    for piece in generation:
        if not as_json:
            click.echo(piece, nl=False)
    times = {
        "first_token_ms": 1000 * generation.first_token_s,
        "tokens_per_s": generation.tokens_per_s if generation.tokens > 1 else None,
    }
    if as_json:
        record = {"prompt": generation.prompt, "text": generation.text, **times, **where_run}
        click.echo(msgspec.json.encode(record).decode())
        return
    click.echo()
    speed = f", then {generation.tokens_per_s:.0f} a second" if generation.tokens > 1 else ""
    click.echo(f"first token after {times['first_token_ms']:.1f} ms{speed}", err=True)


def _say_what_runs(runner: Runner, signed: str | None, as_json: bool) -> dict[str, object]:
    """Print what runs and what is special about it; return what every result says of it."""
    manifest, placement = runner.bundle.manifest, runner.placement
    if not as_json:
        about = (manifest.name, runner.artifact.name, *([signed] if signed else []))
        click.echo(", ".join(about), err=True)
    if runner.tried_s:
        what = f"{runner.artifact.name} is new on this machine"
        click.echo(f"{what}: to try it first took {runner.tried_s:.2f} s", err=True)
    # That its outputs differ was said while it was loaded, with the same reason.
    saturates = "" if runner.differs else saturation(manifest, runner.artifact)
    for why in (runner.instead, saturates, *map(str, placement.elsewhere)):
        if why:
            click.echo(f"warning: {why}", err=True)
    found: dict[str, object] = {
        "artifact": runner.artifact.name,
        "device": placement.device,
        "instead": runner.instead,
        "differs": runner.differs,
        "fallbacks": [str(fallback) for fallback in placement.fallbacks],
        "signature": signed,
    }
    return {name: value for name, value in found.items() if value}


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.showwarning = _show
        yield


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as a line of its own, without the line of code that it comes from."""
    click.echo(f"warning: {message}", err=True)


def _as_text(outputs: tuple[Floats, ...], manifest: Manifest, top: int) -> str:
    classes = manifest.task.classes
    if not classes:
        return "; ".join(np.array2string(y, precision=4, threshold=20) for y in outputs)
    return ", ".join(
        f"{name} {100 * share:.1f} %" for name, share in _ranking(outputs[0], classes, top)
    )


def _as_json(
    source: str,
    outputs: tuple[Floats, ...],
    runner: Runner,
    top: int,
    where_run: Mapping[str, object],
) -> str:
    manifest = runner.bundle.manifest
    record: dict[str, object] = {"source": source, **where_run}
    if manifest.task.classes:
        ranking = _ranking(outputs[0], manifest.task.classes, top)
        record["classes"] = [{"name": name, "probability": share} for name, share in ranking]
    names = [spec.name for spec in manifest.outputs]
    record["outputs"] = {name: y.tolist() for name, y in zip(names, outputs, strict=True)}
    return msgspec.json.encode(record).decode()


def _ranking(logits: Floats, classes: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    """Return the most probable classes with their softmax probability."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    shares = shifted / shifted.sum()
    return [(classes[i], float(shares[i])) for i in np.argsort(-shares)[:top]]
