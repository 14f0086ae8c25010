"""Layer-by-layer certificates as text and as rows of a table."""

from collections.abc import Sequence

from edgedl.runtime.bundle.certificates import (
    LayerCertificate,
    LayerParity,
    Parity,
    RuntimeAgreement,
)
from edgedl.runtime.bundle.manifest import Manifest
from edgedl.runtime.wording import counted
from edgedl.tools.report.table import to_markdown

LAYER_HEADERS = ("layer", "node", "tensor", "max steps", "mean steps", "differing", "SQNR dB")
OUTPUT_HEADERS = (
    "file",
    "output",
    "max steps",
    "mean steps",
    "max error",
    "SQNR dB",
    "SQNR dB to float32",
)
LONGEST_NAME = 48


def layer_rows(layers: Sequence[LayerParity]) -> list[tuple[str, ...]]:
    """Return one row of text per quantized tensor, in the order of LAYER_HEADERS."""
    return [
        (
            layer.layer,
            layer.node,
            _shorten(layer.tensor),
            str(layer.max_lsb),
            f"{layer.mean_lsb:.4f}",
            f"{100 * layer.differing:.3f} %",
            "same" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}",
        )
        for layer in layers
    ]


def describe_integers(parity: Parity) -> str:
    """Return how the integers of a file compare and what it computes in float, in one sentence.

    Empty for a file that was not compared layer by layer.
    """
    said = [] if parity.layers is None else [_describe_layers(parity.layers)]
    if parity.float_operators is not None:
        said.append(f"computed in float: {', '.join(parity.float_operators) or 'nothing'}")
    return "; ".join(said)


def _describe_layers(certificate: LayerCertificate) -> str:
    if certificate.not_read is not None:
        return f"not compared: {certificate.not_read}"
    said = f"{_worst(certificate.layers)}; {counted(certificate.samples, 'sample')}"
    if certificate.outputs_differ:
        share = 100 * certificate.outputs_differ
        said += f"; {share:.2f} % of the outputs differ from those of the run that ships"
    return said


def describe_agreement(agreement: RuntimeAgreement) -> str:
    """Return how two files compare, in one sentence."""
    said = f"{agreement.first} against {agreement.second}: {_worst(agreement.layers)}"
    if agreement.prediction_agreement is not None:
        share = 100 * agreement.prediction_agreement
        said += f"; {share:.2f} % of {agreement.samples} predictions are the same"
    return said


def parity_markdown(manifest: Manifest) -> str:
    """Return every certificate of a bundle, and how its int8 files agree."""
    outputs = [
        row for a in manifest.artifacts if a.parity for row in _output_rows(a.name, a.parity)
    ]
    parts = [to_markdown(OUTPUT_HEADERS, outputs)] if outputs else []
    for artifact in manifest.artifacts:
        parity = artifact.parity
        if parity is None or parity.layers is None:
            continue
        parts.append(f"{artifact.name} ({parity.runtime}): {describe_integers(parity)}")
        if parity.layers.layers:
            parts.append(to_markdown(LAYER_HEADERS, layer_rows(parity.layers.layers)))
        if parity.layers.not_compared:
            parts.append(f"not in the file: {', '.join(parity.layers.not_compared)}")
    parts += [describe_agreement(agreement) for agreement in manifest.between]
    return "\n\n".join(parts) or "no file of this bundle has a certificate"


def _output_rows(artifact: str, parity: Parity) -> list[tuple[str, ...]]:
    """Return one row of text per output of a file, in the order of OUTPUT_HEADERS."""
    return [
        (
            artifact,
            _shorten(output.name),
            "floats" if output.max_lsb is None else f"{output.max_lsb:.2f}",
            "floats" if output.mean_lsb is None else f"{output.mean_lsb:.4f}",
            f"{output.max_abs_error:.3g}",
            "same" if output.sqnr_db is None else f"{output.sqnr_db:.1f}",
            "same" if output.float32_sqnr_db is None else f"{output.float32_sqnr_db:.1f}",
        )
        for output in parity.outputs
    ]


def _worst(layers: Sequence[LayerParity]) -> str:
    if not layers:
        return "no tensor in common"
    differing = [layer for layer in layers if layer.max_lsb]
    if not differing:
        return f"all {len(layers)} quantized tensors are the same, integer for integer"
    worst = max(differing, key=lambda layer: layer.mean_lsb)
    return (
        f"{len(layers) - len(differing)} of {len(layers)} quantized tensors are the same, "
        f"'{worst.node}' differs most (mean {worst.mean_lsb:.4f}, max {worst.max_lsb} steps), "
        f"the first is '{differing[0].node}'"
    )


def _shorten(name: str) -> str:
    """Return the end of a long name, which tells most."""
    return name if len(name) <= LONGEST_NAME else f"...{name[-LONGEST_NAME:]}"
