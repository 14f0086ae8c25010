"""Real networks from packages: edgedl's files and those of the runtimes' own quantizers.

Run as ``python -m benchmarks.real_networks.run [NAME...] [--out FILE] [--time]
[--packages DIR]``. Packages are downloaded once, with pip, npm and apt-get; nothing is installed.
Prints a table of the networks and one of their files.
"""

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

import msgspec
from platformdirs import user_cache_path

from benchmarks.real_networks.compare import FileRow, NetworkRows, compare
from benchmarks.real_networks.network import RealNetwork
from benchmarks.real_networks.networks import find_networks
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.progress import Progress
from edgedl.tools.report.table import to_markdown

ABOUT = ("network", "kind", "package", "licence", "samples")
FILES = ("network", "file", "KB", "weakest part dB", "whole dB", "same answer %", "findings")
FLOATS = ("float32", "float16", "bfloat16")
NOT_IN_RECIPE = "not made: the default recipe"
# Longer reasons end here in the table; the JSON has all of them.
WIDEST = 90


def main() -> int:
    """Compare the networks and print the tables; exit code 1 if a network crashed edgedl."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; all by default")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--time", action="store_true", help="measure latency, too")
    parser.add_argument("--packages", type=Path, default=user_cache_path("edgedl") / "packages")
    options = parser.parse_args()
    shelf = PackageShelf(
        options.packages, Progress(lambda event: print(event.text, file=sys.stderr))
    )
    networks = find_networks(options.names)
    found: list[NetworkRows] = []
    crashed = 0
    for network in networks:
        print(network.name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = network.made(shelf)
                found.append(compare(network, made, Path(folder), options.time))
            except EdgedlError as error:
                found.append(NetworkRows(network.name, (), (), str(error)))
            except Exception as error:
                # What edgedl must never do: the others still have their turn.
                crashed += 1
                traceback.print_exc()
                said = f"crash: {type(error).__name__}: {error}"
                found.append(NetworkRows(network.name, (), (), said))
        if options.out is not None:
            options.out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    print(to_markdown(ABOUT, [about(network) for network in networks]))
    print()
    header = (*FILES, "time / float32") if options.time else FILES
    print(to_markdown(header, [row for one in found for row in table(one, options.time)]))
    return int(crashed > 0)


def about(network: RealNetwork) -> list[str]:
    """Return the row that says where a network comes from."""
    package = network.package
    client = {"pip": "PyPI", "npm": "npm", "apt-get": "Debian"}[package.client]
    return [
        network.name,
        network.kind,
        f"{client} {package.name} {package.version}",
        network.licence,
        network.data,
    ]


def table(network: NetworkRows, timed: bool) -> list[list[str]]:
    """Return the rows of a network's files, without float ones that are as they should be.

    What the default recipe does not make is no row either.
    """
    if network.said:
        return [[network.name, _short(network.said), *[""] * (len(FILES) - 2 + timed)]]
    rows = [row for row in network.files if row.refused or not row.name.endswith(FLOATS)]
    shown = [row for row in rows if not row.refused.startswith(NOT_IN_RECIPE)]
    return [_cells(network.name, row, timed) for row in shown]


def _cells(name: str, row: FileRow, timed: bool) -> list[str]:
    if row.refused:
        return [name, row.name, "", "", "", "", _short(row.refused), *[""] * timed]
    agreement = "" if row.agreement is None else f"{100 * row.agreement:.1f}"
    return [
        name,
        row.name,
        f"{row.kilobytes:.1f}",
        "" if row.part_db is None else f"{row.part_db:.1f}",
        "" if row.whole_db is None else f"{row.whole_db:.1f}",
        agreement,
        str(len(row.findings) or ""),
        *([row.ratio] if timed else []),
    ]


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "/")
    return line if len(line) <= WIDEST else f"{line[:WIDEST]}..."


if __name__ == "__main__":
    sys.exit(main())
