"""Which artifacts of some bundles can be measured here, and under what names."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BadInputError, FileFailedError
from edgedl.runtime.first_load import OtherOutputsWarning, load_file
from edgedl.runtime.precision import FLOAT32, PRECISIONS
from edgedl.runtime.wording import counted, meant
from edgedl.tools.bench.result import NotMeasured

# Before the names of files of the network that stages have cut or trained.
PARENT = "parent:"

# What the others are measured against, the first that runs here.
BASELINES = tuple(f"{backend}-{FLOAT32}" for backend in RUNTIMES)


@dataclass(frozen=True)
class Entry:
    """An artifact under its name in the result."""

    name: str
    bundle: Bundle
    artifact: Artifact


def find_entries(bundles: Sequence[Bundle]) -> tuple[list[Entry], list[NotMeasured]]:
    """Return the artifacts that can run here, and those that cannot with the reason.

    Artifacts are named as in their bundle, with the bundle's name before it if there are several.

    Raises:
        BadInputError: the folders of the bundles do not tell them apart.
    """
    entries, missing = [], []
    for bundle, name in zip(bundles, bundle_names([b.folder for b in bundles]), strict=True):
        prefix = f"{name}:" if name else ""
        for artifact in bundle.manifest.artifacts:
            name = prefix + artifact.name
            availability = open_backend(artifact.backend).available()
            if availability.usable:
                entries.append(Entry(name, bundle, artifact))
            else:
                why = "; ".join([availability.detail, *_known_of(artifact)])
                missing.append(NotMeasured(name, why))
    return entries, missing


def leave_out_refused(
    entries: Sequence[Entry],
) -> tuple[list[Entry], list[NotMeasured]]:
    """Load every artifact once; return those that their runtime takes, and the others with why.

    A runtime can refuse on one processor what it takes on another. One that is new here is tried in
    a process of its own first; whether its golden outputs differ, others look.

    Raises:
        IntegrityError: a file is not what its manifest says.
    """
    taken, refused = [], []
    for entry in entries:
        backend = open_backend(entry.artifact.backend)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OtherOutputsWarning)
                load_file(entry.bundle, entry.artifact, 1, backend).close()
        except (BadInputError, FileFailedError) as error:
            refused.append(NotMeasured(entry.name, str(error)))
        else:
            taken.append(entry)
    return taken, refused


def bundle_names(folders: Sequence[Path]) -> list[str]:
    """Return what tells bundles apart: their folders' names, or of a folder further up.

    Where that is not one folder, it is several. A single bundle needs no name.

    >>> bundle_names([Path("small/bundle"), Path("smaller/bundle")])
    ['small', 'smaller']
    >>> bundle_names([Path("small/parent"), Path("small/bundle"), Path("smaller/bundle")])
    ['small-parent', 'small-bundle', 'smaller-bundle']

    Raises:
        BadInputError: two of them are one folder.
    """
    if len(folders) == 1:
        return [""]
    paths = [folder.absolute().parts for folder in folders]
    depths = range(1, max(len(parts) for parts in paths) + 1)
    one = [[parts[-d] if d <= len(parts) else "" for parts in paths] for d in depths]
    several = [["-".join(parts[-d:]) for parts in paths] for d in depths]
    for names in (*one, *several):
        if len(set(names)) == len(names) and all(names):
            return names
    raise BadInputError("a bundle is given twice: " + ", ".join(str(folder) for folder in folders))


def put_baseline_first(
    entries: Sequence[Entry],
    prefix: str = "",
    artifact: str | None = None,
    any_float: bool = False,
) -> list[Entry]:
    """Return the entries with the baseline first.

    Args:
        entries: all that run here.
        prefix: how the names of the baseline's bundle begin.
        artifact: the baseline; None takes float32 on ONNX Runtime, or another float32 file where
            that does not run.
        any_float: whether the file with most bits will do where there is no float32 file.

    Raises:
        BadInputError: there is no such entry.
    """
    wanted = [f"{prefix}{name}" for name in ([artifact] if artifact else BASELINES)]
    there = [e.name for e in entries]
    name = next((name for name in wanted if name in there), None)
    if name is None and any_float and entries:
        order = list(PRECISIONS)
        return sorted(entries, key=lambda e: -order.index(e.artifact.precision))
    if name is None:
        raise BadInputError(
            f"no baseline '{wanted[0]}' runs on this machine{meant(wanted[0], there)}: "
            "name one with --baseline-artifact"
        )
    return sorted(entries, key=lambda e: e.name != name)


def float32_of(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
    """Return another float32 file of the same runtime: the parent's, or else the bundle's own."""
    floats = [
        other
        for other in entries
        if other != entry
        and other.artifact.backend == entry.artifact.backend
        and other.artifact.kind is FLOAT32
        and (other.bundle == entry.bundle or other.name.startswith(PARENT))
    ]
    return min(floats, key=lambda other: not other.name.startswith(PARENT), default=None)


def _known_of(artifact: Artifact) -> list[str]:
    """Say what is known of a file that cannot run here."""
    known = [f"the file was {artifact.check}"] if artifact.check else []
    parity = artifact.parity
    if parity is not None and parity.float32_agreement is not None:
        known.append(
            f"run by {parity.runtime}, its predictions agree with float32 for "
            f"{100 * parity.float32_agreement:.1f} % of {counted(parity.samples, 'sample')}"
        )
    known += [f"finding: {found.describe()}" for found in artifact.findings]
    return known
