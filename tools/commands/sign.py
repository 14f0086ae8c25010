"""``edgedl sign``: sign a bundle, so that its users can tell who made it."""

from pathlib import Path

import click

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.seal import SIGNATURE, read_manifest, write_signature
from edgedl.runtime.bundle.signature import is_encrypted, sign
from edgedl.tools.terminal.parameter_types import BUNDLE


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...", type=BUNDLE)
@click.option(
    "--key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private Ed25519 key, as 'ssh-keygen -t ed25519 -f FILE' makes one.",
)
def command(bundles: tuple[Path, ...], key: Path) -> None:
    """Sign every BUNDLE with your private key: writes manifest.sig into it.

    Every file is compared with its sha256 first. The signature is of manifest.json, which has the
    sha256 of every file. To check it, give run, bench or verify your public key with --trust.
    """
    passphrase = (
        click.prompt(f"Passphrase of {key}", hide_input=True) if is_encrypted(key) else None
    )
    for path in bundles:
        bundle = Bundle.open(path)
        bundle.verify()
        manifest, _ = read_manifest(bundle.folder)
        signature, fingerprint = sign(manifest, key, passphrase)
        write_signature(bundle.folder, signature)
        click.echo(f"{bundle.folder / SIGNATURE}: signed with {fingerprint}")
