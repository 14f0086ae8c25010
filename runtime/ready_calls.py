"""Calls of shapes that were seen before: the checks that are left, and no memory taken again.

A small network answers in microseconds, in which what surrounds it shows.
"""

from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy import copyto, ndarray, vdot

from edgedl.runtime.backend import Array, Session
from edgedl.runtime.bundle.layout import to_file, to_network
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.tensors import Floats

Shapes = tuple[tuple[int, ...], ...]
# Shapes that calls are kept for; each keeps its inputs and outputs.
MOST_SHAPES = 8
FLOAT32 = np.dtype(np.float32)
# Up to here a product with itself finds what is not finite faster than looking at each value does;
# the library of such products would start threads for more.
FEW_VALUES = 8192


class ReadyCall:
    """One call's memory: the file's inputs, seen as the network has them, and its outputs."""

    def __init__(
        self,
        session: Session,
        artifact: Artifact,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
    ) -> None:
        """Take memory, and bind a call to it where the runtime can that.

        Args:
            session: of the file.
            artifact: its description.
            inputs: as the network has them.
            outputs: that they have led to.
        """
        pairs = list(zip(inputs, artifact.inputs, strict=True))
        self._inputs = [np.array(_turned(x, spec), spec.dtype, order="C") for x, spec in pairs]
        self.views = _seen(self._inputs, artifact.inputs)
        floats = [x.reshape(-1) for x in self._inputs if x.dtype.kind == "f"]
        self._few = [x for x in floats if x.size <= FEW_VALUES and x.dtype.itemsize > 2]
        self._many = [x for x in floats if x.size > FEW_VALUES or x.dtype.itemsize <= 2]
        found = [
            np.empty(_turned(y, spec).shape, spec.dtype)
            for y, spec in zip(outputs, artifact.outputs, strict=True)
        ]
        self._outputs = _seen(found, artifact.outputs)
        self._session, self._artifact = session, artifact
        self._bound = session.bind(self._inputs, found)

    def __call__(self) -> tuple[Floats, ...]:
        """Run on what the inputs hold; the outputs are the caller's."""
        if self._bound is None:
            outputs = _seen(self._session.run(self._inputs), self._artifact.outputs)
            return tuple([y.astype(np.float32, copy=False) for y in outputs])
        self._bound()
        return tuple([y.astype(FLOAT32) for y in self._outputs])

    @property
    def is_float32(self) -> bool:
        """Whether the file's floats are float32."""
        floats = [x for x in (*self._inputs, *self._outputs) if x.dtype.kind == "f"]
        return all(x.dtype == FLOAT32 for x in floats)

    def run(self) -> tuple[Array, ...]:
        """Run as a call does; where it is bound the outputs are its own, until the next run."""
        if self._bound is None:
            return self()
        self._bound()
        return tuple(self._outputs)

    def takes(self, inputs: Sequence[Array]) -> bool:
        """Copy inputs of the right types and shapes; say whether all values are finite."""
        for x, view in zip(inputs, self.views):  # noqa: B905, it takes half a microsecond
            copyto(view, x)
        for flat in self._few:
            # A sum of squares beyond the largest number needs a closer look, and gets it.
            if not isfinite(vdot(flat, flat)):
                return False
        return not self._many or all(np.isfinite(flat).all() for flat in self._many)


class ReadyCalls:
    """The calls of a loaded file that are ready, by the shapes of their inputs.

    Only files whose numbers are the network's have any: no scales, no normalisation.
    """

    def __init__(self, session: Session, artifact: Artifact, logical: Sequence[TensorSpec]) -> None:
        """Take a loaded file, and the network's inputs."""
        self._session, self._artifact = session, artifact
        self._dtypes = [np.dtype(spec.dtype) for spec in logical]
        self._can = all(map(_is_plain, (*artifact.inputs, *artifact.outputs)))
        self._known: set[Shapes] = set()
        self._free: dict[Shapes, list[ReadyCall]] = {}

    def __call__(self, inputs: Sequence[Array]) -> tuple[Floats, ...] | None:
        """Run a batch; None where no call is ready or the inputs need a closer look."""
        for x, dtype in zip(inputs, self._dtypes):  # noqa: B905, their number is checked below
            # Arrays that were pickled have a type object of their own.
            if type(x) is not ndarray or (x.dtype is not dtype and x.dtype != dtype):
                return None
        free = self._free.get(tuple([x.shape for x in inputs]))
        if not free:
            return None
        try:
            ready = free.pop()
        except IndexError:
            # Another thread was faster.
            return None
        try:
            outputs = ready() if ready.takes(inputs) else None
        except Exception:
            # The size of an output may depend on the values: then no memory is ready for it. What
            # else a runtime raises it raises again where everything is looked at.
            self.close()
            return None
        free.append(ready)
        return outputs

    def prepare(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Make a call ready for inputs that were checked and run, the second time that they come.

        Args:
            inputs: as they came.
            outputs: that they have led to.
        """
        if not self._can or not all(type(x) is np.ndarray for x in inputs):
            return
        shapes = tuple([x.shape for x in inputs])
        if shapes not in self._known:
            if len(self._known) < MOST_SHAPES:
                self._known.add(shapes)
            return
        if self._free.get(shapes):
            # One is ready, and did not take these values.
            return
        ready = self.ready(inputs, outputs)
        if ready is not None:
            self._free.setdefault(shapes, []).append(ready)

    def ready(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> ReadyCall | None:
        """Return a call for inputs like these; None where the file's numbers are others.

        So it is, too, where a batch would have to be cut.
        """
        if not self._can or not all(map(_takes, self._artifact.inputs, inputs)):
            return None
        least, most = self._session.batches or (1, len(inputs[0]))
        if not least <= len(inputs[0]) <= most:
            return None
        return ReadyCall(self._session, self._artifact, inputs, outputs)

    def close(self) -> None:
        """Drop the calls. One that runs ends."""
        self._can, self._free = False, {}


def _turned(x: Array, spec: TensorSpec) -> Array:
    """Return an array of the network as the file has it."""
    return x if spec.layout is None else to_file(x, spec.layout)


def _seen(arrays: Sequence[Array], specs: Sequence[TensorSpec]) -> list[Array]:
    """Return arrays of the file as the network has them; views."""
    return [
        x if spec.layout is None else to_network(x, spec.layout)
        for x, spec in zip(arrays, specs, strict=True)
    ]


def _is_plain(spec: TensorSpec) -> bool:
    return spec.scale is None and spec.zero_point is None and not spec.mean


def _takes(spec: TensorSpec, x: Array) -> bool:
    """Say whether a file takes the whole batch at once."""
    shape = spec.network_shape
    return all(want in (None, have) for want, have in zip(shape, x.shape, strict=True))
