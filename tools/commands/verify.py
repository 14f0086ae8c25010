"""``edgedl verify``: is this bundle whole, and does it compute what it must?"""

from pathlib import Path

import click

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.seal import read_signature
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.precision import INT8
from edgedl.runtime.selfcheck.golden import check_golden
from edgedl.runtime.selfcheck.layers import can_check_layers, check_layers
from edgedl.tools.bench.entries import Entry, find_entries, leave_out_refused
from edgedl.tools.terminal.parameter_types import BUNDLE
from edgedl.tools.terminal.trust import describe_trust, trust_options


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...", type=BUNDLE)
@click.option("--parity", is_flag=True, help="Also compare every quantized layer of int8 files.")
@trust_options
def command(bundles: tuple[Path, ...], parity: bool, trust: Trust | None) -> None:
    """Check every file of a BUNDLE against its sha256, then run the golden vectors.

    With --trust, the bundle must also be signed with one of your keys.

    With --parity, the integers of every quantized layer are also compared with those of the torch
    graph that the bundle was made from. If a file computes other integers on this machine, the
    first such layer is named. This needs neither torch nor data.
    """
    found = []
    for path in bundles:
        several = f"{path}: " if len(bundles) > 1 else ""
        if several:
            click.echo(path)
        bundle = Bundle.open(path, trust)
        click.echo(describe_trust(bundle, trust) or _describe_unasked(bundle))
        found += [several + wrong for wrong in _verify(bundle, parity)]
    if found:
        raise IntegrityError("; ".join(found))


def _describe_unasked(bundle: Bundle) -> str:
    if read_signature(bundle.folder) is None:
        return "not signed"
    return "signed, by whom is not checked: give --trust KEYS"


def _verify(bundle: Bundle, parity: bool) -> list[str]:
    """Print what is found of a bundle; return what is wrong with it."""
    bundle.verify()
    click.echo(f"{len(bundle.manifest.files)} files match their sha256")
    if bundle.manifest.golden_reach is not None:
        click.echo(bundle.manifest.golden_reach.describe())
    entries, missing = find_entries([bundle])
    entries, refused = leave_out_refused(entries)
    for item in refused:
        click.echo(f"{item.what}: FAILED, {item.why}")
    failed = [entry.name for entry in entries if not _check(entry, parity)]
    for item in missing:
        click.echo(f"{item.what}: not run: {item.why}")
    wrong = []
    if refused:
        wrong.append(f"{', '.join(item.what for item in refused)} does not run on this machine")
    if failed:
        wrong.append(
            f"{', '.join(failed)}: the outputs on this machine differ from those where it was made"
        )
    return wrong


def _check(entry: Entry, parity: bool) -> bool:
    """Run an artifact and print how it did; say whether it computes what it must."""
    with LoadedModel(entry.bundle, entry.artifact) as runner:
        check = check_golden(runner)
    click.echo(f"{entry.name}: {check.describe()}")
    layers_passed = not parity or _check_layers(entry)
    return check.passed and layers_passed


def _check_layers(entry: Entry) -> bool:
    """Print how the layers of an artifact compare, and say whether all are as certified."""
    artifact = entry.artifact
    if artifact.kind is not INT8:
        return True
    if not can_check_layers(entry.bundle, artifact):
        click.echo("  layers: not certified in this bundle")
        return True
    found = check_layers(entry.bundle, artifact)
    wrong = [d for d in found if not d.passed]
    worst = max(found, key=lambda d: d.mean_lsb)
    click.echo(
        f"  layers: {len(found) - len(wrong)} of {len(found)} as certified, the largest mean error "
        f"is {worst.mean_lsb:.3f} steps"
    )
    if wrong:
        first = wrong[0]
        click.echo(
            f"  first layer that differs: {first.layer.layer or 'no module'}, "
            f"'{first.layer.node}' ({first.layer.tensor}): mean {first.mean_lsb:.3f} and at most "
            f"{first.max_lsb} steps, certified were {first.layer.mean_lsb:.3f} and "
            f"{first.layer.max_lsb}"
        )
    return not wrong
