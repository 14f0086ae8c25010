"""Which operators run in which precision on which runtime, found by running them.

Run as ``python -m benchmarks.operators.run [NAME...] [--out FILE] [--bundles DIR] [--json]``. NAME
is a part of an operator's name, such as conv; without one all are tried, which takes half an hour
or more on one core. ``--bundles`` keeps the files: ``edgedl verify DIR/*/* --parity`` on a device.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from benchmarks.operators.cases import OperatorCase, operator_cases
from benchmarks.operators.matrix import support_matrix
from benchmarks.operators.page import render_page
from edgedl.compress.export.tensorrt.check import checker
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.wording import meant
from edgedl.tools.terminal.progress import steps
from edgedl.tools.terminal.workspace import new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Compress one small network per operator and show what every runtime makes of it.

    Args:
        arguments: those of the command line; None reads them.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="operators; all by default")
    parser.add_argument("--out", type=Path, help="write a page here")
    parser.add_argument("--bundles", type=Path, help="keep the bundles in this new folder")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    options = parser.parse_args(arguments)
    try:
        cases = chosen(options.names)
        kept = nullcontext(None) if options.bundles is None else new_folder(options.bundles)
        with kept as folder, steps("operators", len(cases)) as progress:
            rows = support_matrix(cases, progress, folder)
    except EdgedlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = render_page(rows, run_context(), checker())
    if options.out is not None:
        with atomic_write(options.out) as file:
            file.write(page.encode())
    if options.json:
        print(msgspec.json.encode(rows).decode())
    elif options.out is None:
        print(page)
    return 0


def chosen(names: Sequence[str]) -> list[OperatorCase]:
    """Return the cases whose names contain one of some parts, all of them if there are none.

    Raises:
        BadInputError: a part is in no name.
    """
    every = operator_cases()
    for name in names:
        if not any(name.lower() in case.name.lower() for case in every):
            known = meant(name, [case.name for case in every])
            raise BadInputError(f"no operator has '{name}' in its name{known}")
    return [c for c in every if not names or any(n.lower() in c.name.lower() for n in names)]


if __name__ == "__main__":
    sys.exit(main())
