"""``edgedl doctor``: what this machine can do."""

import importlib.util
from importlib.metadata import version

import click

from edgedl.runtime.backends.runtimes import BACKENDS, open_backend
from edgedl.runtime.install import install_line
from edgedl.runtime.measure.device import run_context, saturates
from edgedl.tools.terminal.host_packages import HOST_PACKAGES


@click.command()
def command() -> None:
    """Show what this machine can run, compress and measure, and what is not installed."""
    context = run_context()
    click.echo(f"machine: {context.cpu}, {context.cores} cores, Python {context.python}")
    advice = " (no VNNI: --target ort_avx2)" if saturates(context.isa) else ""
    click.echo(f"int8 instructions: {', '.join(context.isa) or 'none known'}{advice}")
    for name in BACKENDS:
        availability = open_backend(name).available()
        state = "ready" if availability.usable else "not usable"
        click.echo(f"backend {name}: {state}: {availability.detail}")
    for module, package in HOST_PACKAGES.items():
        found = importlib.util.find_spec(module) is not None
        missing = f"missing: {install_line(package.extra)}"
        state = version(package.distribution) if found else missing
        click.echo(f"{package.distribution} ({package.purpose}): {state}")
