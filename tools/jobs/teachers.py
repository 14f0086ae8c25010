"""Find who teaches: another subject, or the files of a bundle."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgedl.compress.targets.target import REFERENCE
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.seal import MANIFEST
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.runner import Runner
from edgedl.tools.jobs.subjects import find_subject


class BundleTeacher(nn.Module):
    """A bundle's float32 file, run by ONNX Runtime; it cannot be trained."""

    digest: Tensor

    def __init__(self, bundle: Bundle) -> None:
        """Load the file.

        Raises:
            BadInputError: the bundle has no such file.
            BackendUnavailableError: its runtime is not installed.
        """
        super().__init__()
        files = {artifact.name: artifact for artifact in bundle.manifest.artifacts}
        name = REFERENCE.artifact_name(FLOAT32)
        if name not in files:
            raise BadInputError(f"{bundle.folder} has no {name} that could teach")
        self._runner = Runner(bundle, files[name])
        content = (bundle.folder / MANIFEST).read_bytes()
        digest = torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8)
        # Tells one teacher from another, as weights do.
        self.register_buffer("digest", digest)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs float32 [B, ...] of inputs [B, ...]."""
        outputs = self._runner(*(x.cpu().contiguous().numpy() for x in inputs))
        return tuple(torch.from_numpy(y).to(inputs[0].device) for y in outputs)


def find_teacher(reference: str, classes: Sequence[str] = ()) -> nn.Module:
    """Return the network of a subject, or the file of a bundle's folder.

    Args:
        reference: of the subject or bundle.
        classes: that the student knows, in its order.

    Raises:
        BadInputError: there is no such model, file, function or bundle, or it has the classes in
            another order.
        IntegrityError: the bundle is damaged.
    """
    if Path(reference).is_dir():
        bundle = Bundle.open(Path(reference))
        _check_classes(reference, bundle.manifest.task.classes, classes)
        return BundleTeacher(bundle)
    subject = find_subject(reference)
    _check_classes(reference, subject.task.classes, classes)
    return subject.module.eval()


def _check_classes(reference: str, known: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse the same names in another order; other names may mean the same."""
    if sorted(known) == sorted(wanted) and tuple(known) != tuple(wanted):
        raise BadInputError(
            f"the teacher {reference} has the classes in another order: {', '.join(known)}; "
            f"the network has {', '.join(wanted)}"
        )
