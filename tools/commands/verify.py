"""``edgedl verify``: is this bundle whole, and does it compute what it must?"""

from pathlib import Path

import click

from edgedl.runtime.bundle import Bundle
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.golden import check_golden
from edgedl.runtime.runner import Runner
from edgedl.tools.entries import find_entries


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def command(bundle: Path) -> None:
    """Check every file of BUNDLE against its sha256, then run the golden vectors."""
    opened = Bundle.open(bundle)
    opened.verify()
    click.echo(f"{len(opened.manifest.files)} files match their sha256")
    entries, missing = find_entries([opened])
    failed = []
    for entry in entries:
        with Runner(opened, entry.artifact) as runner:
            check = check_golden(runner)
        verdict = "ok" if check.passed else "FAILED"
        click.echo(
            f"{entry.name}: {verdict}, golden outputs differ by {check.max_abs_error:.3g} "
            f"(allowed {check.tolerance:.3g})"
        )
        if not check.passed:
            failed.append(entry.name)
    for item in missing:
        click.echo(f"{item.what}: not run: {item.why}")
    if failed:
        raise IntegrityError(
            f"{', '.join(failed)} computes something else on this machine than where it was made"
        )
