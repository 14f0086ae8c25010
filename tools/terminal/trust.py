"""The options that say whose bundles are accepted."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BadInputError


def trust_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --trust and --allow-unsigned to a command, which gets ``trust``, a Trust or None."""

    @click.option(
        "--trust",
        "keys",
        metavar="KEYS",
        envvar="EDGEDL_TRUST",
        show_envvar=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File of public keys: refuse a bundle that is not signed with one of them.",
    )
    @click.option(
        "--allow-unsigned", is_flag=True, help="With --trust: take bundles without a signature."
    )
    @wraps(function)
    def with_trust(keys: Path | None, allow_unsigned: bool, **rest: Any) -> Any:
        if allow_unsigned and keys is None:
            raise BadInputError("--allow-unsigned goes with --trust")
        trust = None if keys is None else Trust.read(keys, allow_unsigned)
        return function(trust=trust, **rest)

    return with_trust


def describe_trust(bundle: Bundle, trust: Trust | None) -> str | None:
    """Say who signed a bundle; None where nobody asked."""
    if trust is None:
        return None
    return f"signed by {bundle.signer}" if bundle.signer else "not signed, allowed"
