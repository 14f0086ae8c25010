"""``edgedl compile``: build TensorRT engines of a bundle."""

from pathlib import Path

import click

from edgedl.runtime.backends.engines import EngineBackend
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.gpu import find_gpu
from edgedl.runtime.tensorrt.library import LIBRARIES
from edgedl.runtime.tensorrt.profiles import Sizes
from edgedl.runtime.wording import counted
from edgedl.tools.jobs.compile_bundle import (
    Compiled,
    Wish,
    artifacts_to_compile,
    compile_ahead,
    compile_here,
)
from edgedl.tools.package.device_package import SCRIPT, write_package
from edgedl.tools.terminal.parameter_types import BUNDLE, NEW_FOLDER, SIZES
from edgedl.tools.terminal.progress import steps
from edgedl.tools.terminal.trust import trust_options
from edgedl.tools.terminal.workspace import new_folder

PACKAGE = "compile on the device, or write a folder for it with --package DIR"
# Of layers that run elsewhere than asked for.
MOST_NAMES = 5


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--target",
    type=click.Choice(LIBRARIES),
    default=LIBRARIES[0],
    show_default=True,
    help="TensorRT, or TensorRT for RTX on desktops.",
)
@click.option(
    "--artifact", "names", multiple=True, help="A file by name [all that are for TensorRT]."
)
@click.option("--batch", type=SIZES, help="Sizes of the batch, MIN:OPT:MAX [the bundle's].")
@click.option("--length", type=SIZES, help="Sizes of other free axes, MIN:OPT:MAX.")
@click.option(
    "--workspace", type=click.IntRange(1), metavar="MIB", help="Most memory of a layer [all]."
)
@click.option("--sparse", is_flag=True, help="Allow kernels for weights with two zeros in four.")
@click.option(
    "--dla", type=click.IntRange(0), metavar="CORE", help="Use this accelerator of a Jetson."
)
@click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    metavar="8.6",
    help="Compile ahead of time for such GPUs (tensorrt_rtx; needs --out).",
)
@click.option("--out", type=NEW_FOLDER, help="New folder for engines compiled ahead of time.")
@click.option(
    "--package", type=NEW_FOLDER, help="New folder with all that a device needs; builds nothing."
)
@trust_options
def command(
    bundle: Path,
    target: str,
    names: tuple[str, ...],
    batch: Sizes | None,
    length: Sizes | None,
    workspace: int | None,
    sparse: bool,
    dla: int | None,
    capabilities: tuple[str, ...],
    out: Path | None,
    package: Path | None,
    trust: Trust | None,
) -> None:
    """Build TensorRT engines of BUNDLE for the GPU of this machine, run and keep them.

    An engine is for one file, one version of TensorRT, one GPU and its driver. 'edgedl run' and
    'bench' take the kept one; if any of these changes, they build it again and say why.

    On a machine without a GPU: --package writes a folder with the ONNX files, golden outputs and a
    script that builds and runs them without edgedl. TensorRT for RTX also compiles ahead of time.
    """
    if bool(capabilities) != (out is not None):
        raise BadInputError("--compute-capability and --out go together")
    if package is not None and out is not None:
        raise BadInputError("--package and --out do not go together")
    opened = Bundle.open(bundle, trust)
    backend = open_backend(target)
    if not isinstance(backend, EngineBackend):
        raise BadInputError(f"{target} needs no engine")
    artifacts = artifacts_to_compile(opened, backend, names)
    wish = Wish(batch, length, workspace, sparse, dla, capabilities)
    if package is not None:
        with new_folder(package) as folder:
            write_package(opened, [(a, wish.settings(backend, a)) for a in artifacts], folder)
        click.echo(f"{package}: copy it to the device and run: python3 {SCRIPT}")
        return
    with steps("compile", 2 * len(artifacts)) as progress:
        if out is not None:
            with new_folder(out) as folder:
                done = list(compile_ahead(opened, backend, artifacts, wish, folder, progress))
        else:
            _need_gpu()
            done = list(compile_here(opened, backend, artifacts, wish, progress))
    for compiled in done:
        click.echo(_describe(compiled))
    failed = [c.artifact.name for c in done if c.golden is not None and not c.golden.passed]
    if failed:
        raise IntegrityError(
            f"{', '.join(failed)}: the engine's outputs are not the bundle's golden ones"
        )


def _need_gpu() -> None:
    try:
        find_gpu()
    except BackendUnavailableError as error:
        raise BackendUnavailableError(f"{error}: {PACKAGE}") from error


def _describe(compiled: Compiled) -> str:
    parts = [f"{compiled.artifact.name}: engine of {compiled.size_bytes / 1e6:.1f} MB"]
    parts.append("not run" if compiled.golden is None else compiled.golden.describe())
    if compiled.on_gpu:
        shown = ", ".join(compiled.on_gpu[:MOST_NAMES])
        more = ", ..." if len(compiled.on_gpu) > MOST_NAMES else ""
        parts.append(f"{counted(len(compiled.on_gpu), 'layer')} on the GPU: {shown}{more}")
    return ", ".join(parts)
