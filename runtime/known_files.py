"""What is known of model files that ran on this machine before: do they give their golden outputs?

It is kept in a folder of the user's own, by all that an answer depends on.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgedl.runtime.backend import Backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import GOLDEN
from edgedl.runtime.bundle.manifest import Artifact, FileRecord, TensorSpec
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.measure.device import instruction_sets
from edgedl.runtime.own_folder import refuse_foreign, user_folder, write_own

LOG = logging.getLogger(__name__)
# The folder instead of the one in the user's cache folder.
PLACE = "EDGEDL_KNOWN_FILES"
# More than a machine has in use; the oldest go.
MOST = 1000
_NAME = re.compile(r"[0-9a-f]{32}")


class FileKey(msgspec.Struct, frozen=True):
    """What the answers of a file depend on, on one machine.

    Attributes:
        name: of the artifact: the golden vectors are by name.
        file, golden: size and sha256 of the file, and of the golden vectors.
        inputs, outputs: of the file.
        tolerances: that its golden outputs have.
        runtime: that runs it, with its version.
        isa: instruction sets of the processor that matter for int8.
    """

    name: str
    file: FileRecord
    golden: FileRecord | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tolerances: tuple[float, ...]
    runtime: str
    isa: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle, artifact: Artifact, backend: Backend) -> "FileKey":
        """Return the key of an artifact on a backend of this machine."""
        files: Mapping[str, FileRecord] = bundle.manifest.files
        return cls(
            artifact.name,
            files[artifact.path],
            files.get(GOLDEN),
            artifact.inputs,
            artifact.outputs,
            artifact.golden_tolerances,
            f"{backend.label}: {backend.available().detail}",
            instruction_sets(),
        )

    @property
    def digest(self) -> str:
        """A short name of all of it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a file.

    Attributes:
        differs: how its golden outputs differ from what they must be; empty if they do not.
    """

    differs: str


@dataclass(frozen=True)
class KnownFiles:
    """A folder with a small file for each model file that is known.

    Attributes:
        folder: made when the first is kept; None where there can be none.
    """

    folder: Path | None

    @classmethod
    def of_user(cls) -> "KnownFiles":
        """Return those of this user: in ``$EDGEDL_KNOWN_FILES``, or the user's cache folder."""
        try:
            return cls(user_folder("known_files", PLACE))
        except BadInputError as error:
            LOG.info("%s; files are tried each time they are loaded", error)
            return cls(None)

    def find(self, key: FileKey) -> Known | None:
        """Return what is known of a file; None where it is new, or the folder is not the user's."""
        if self.folder is None:
            return None
        path = self.folder / key.digest
        try:
            refuse_foreign(self.folder)
            refuse_foreign(path)
            return msgspec.json.decode(path.read_bytes(), type=Known)
        except (OSError, msgspec.DecodeError):
            return None
        except IntegrityError as error:
            LOG.warning("%s", error)
            return None

    def keep(self, key: FileKey, known: Known) -> None:
        """Keep what is known of a file, as far as this user's disk and folder let it."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_foreign(self.folder)
            write_own(self.folder / key.digest, msgspec.json.encode(known))
            # The folder may be one in which the user has other files, too.
            own = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
            for path in sorted(own, key=_changed)[:-MOST]:
                path.unlink(missing_ok=True)
        except (OSError, IntegrityError) as error:
            LOG.info("%s is not kept for the next time: %s", self.folder / key.digest, error)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
