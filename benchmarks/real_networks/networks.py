"""All networks of packages that edgedl is tried on."""

from benchmarks.real_networks import (
    backgammon,
    embedder,
    face_api,
    mtcnn,
    music,
    speech,
    text,
)
from benchmarks.real_networks.network import RealNetwork
from edgedl.runtime.errors import BadInputError

NETWORKS: tuple[RealNetwork, ...] = (
    *speech.NETWORKS,
    *music.NETWORKS,
    *mtcnn.NETWORKS,
    *face_api.NETWORKS,
    *embedder.NETWORKS,
    *text.NETWORKS,
    *backgammon.NETWORKS,
)


def find_networks(names: list[str]) -> tuple[RealNetwork, ...]:
    """Return the networks of these names; all where none is given.

    Raises:
        BadInputError: there is none of a name.
    """
    known = {network.name: network for network in NETWORKS}
    for name in names:
        if name not in known:
            raise BadInputError(f"no network '{name}': there are {', '.join(known)}")
    return tuple(known[name] for name in names) or NETWORKS
