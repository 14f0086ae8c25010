"""How to install more of edgedl: the line that fits where this one came from (PEP 610)."""

import json
import shlex
from pathlib import Path
from typing import Any

# The extra that brings the wheel of weights and data, whose tree is the folder of that name; and
# the one that brings everything.
MODELS = "models"
ALL = "all"


def install_line(extra: str) -> str:
    """Return the command that installs an extra of edgedl.

    An extra of a wheel that came from a folder may want the wheel beside it, one of a source tree
    the tree.
    """
    origin = _origin()
    place = _local(origin)
    if place is None or not place.exists():
        return (
            f"pip install 'edgedl[{extra}]' "
            "(add --find-links FOLDER if edgedl came from wheels in a folder)"
        )
    if "archive_info" in origin:
        return f"pip install --find-links {shlex.quote(str(place.parent))} 'edgedl[{extra}]'"
    option = "-e " if origin.get("dir_info", {}).get("editable") else ""
    models = f"{option}{shlex.quote(str(place / MODELS))}"
    own = f"{option}{shlex.quote(f'{place}[{extra}]')}"
    if extra == MODELS:
        return f"pip install {models}"
    return f"pip install {models} {own}" if extra == ALL else f"pip install {own}"


def _origin() -> dict[str, Any]:
    """Return what the installer wrote down of where edgedl came from; empty if it did not."""
    # Every command would pay for this import, which takes as long as all that edgedl does to start.
    from importlib.metadata import distributions

    # What a build leaves in the source tree has no list of installed files.
    installed = [d for d in distributions(name="edgedl") if d.read_text("RECORD") is not None]
    try:
        found = json.loads(installed[0].read_text("direct_url.json") or "{}") if installed else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _local(origin: dict[str, Any]) -> Path | None:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    url = urlsplit(str(origin.get("url", "")))
    return Path(url2pathname(url.path)) if url.scheme == "file" else None
