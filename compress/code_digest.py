"""Which edgedl this is, to the last line: what was computed or timed with another is not used."""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

CODE = ("edgedl.compress", "edgedl.models", "edgedl.runtime")


@cache
def code_digest() -> str:
    """Return a digest of edgedl's own code and tables: another version, other results."""
    digest = hashlib.sha256()
    for package in CODE:
        _add_sources(files(package), digest)
    return digest.hexdigest()


def _add_sources(folder: Traversable, digest: "hashlib._Hash") -> None:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            _add_sources(entry, digest)
        elif entry.name.endswith((".py", ".yaml")):
            digest.update(entry.name.encode() + entry.read_bytes())
