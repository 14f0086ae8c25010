"""Integer kernels of x86 processors without VNNI: they add two products in 16 bits."""

from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.manifest import Artifact, Manifest
from edgedl.runtime.measure.device import instruction_sets, saturates

# Of int8 weights for which two products can be too large.
WEIGHT_BITS = 8
# Two products of 255 and this fit into 16 bits.
LARGEST_SAFE_WEIGHT = 64


def saturation(manifest: Manifest, artifact: Artifact) -> str:
    """Return why this processor may compute an artifact wrongly, and what to do; empty if not."""
    bits = [entry.settings.get("weight_bits", WEIGHT_BITS) for entry in manifest.history]
    if artifact.kind.activations != "int8" or any(b != WEIGHT_BITS for b in bits):
        return ""
    return saturates_here(artifact.backend)


def saturates_here(runtime: str) -> str:
    """Return why this processor may compute 8-bit weights wrongly, and what to do; empty if not."""
    backend = open_backend(runtime)
    if backend.without_vnni is None or not saturates(instruction_sets()):
        return ""
    return (
        f"this processor has no VNNI, so {backend.label} adds products in 16 bits, which saturate: "
        f"for devices like it, compress with --target {backend.without_vnni}"
    )
