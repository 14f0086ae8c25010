"""The on-device door: a bundle in, float arrays in, float arrays out."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock, current_thread

from edgedl.runtime.backend import Array, Backend, Session
from edgedl.runtime.bound import Bound
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.closing import Closing
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.placement import Placement
from edgedl.runtime.policy import Policy, Wish
from edgedl.runtime.shadow import Shadow, SwapOutcome, check_replacement
from edgedl.runtime.stream import Drop, Stream, Streamed
from edgedl.runtime.task.inputs import NamedInputs, read_inputs
from edgedl.runtime.tensors import Floats
from edgedl.runtime.wording import meant

# Most times as long as the model before that a new one may take.
MAX_SLOWDOWN = 1.5
Inputs = Array | tuple[Array, ...]
# Names of the threads that run what was submitted begin so.
THREAD = "edgedl-runner"


class Runner(Closing):
    """Runs one artifact of a bundle, which can be replaced while it runs.

    Several threads may share a runner: each call returns the answer to its own inputs.

    >>> with Runner.open(Path("out/bundle")) as runner:  # doctest: +SKIP
    ...     (logits,) = runner(x)                        # float32 [N, C, H, W] -> [N, K]
    """

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact | None = None,
        threads: int = 1,
        trust: Trust | None = None,
        backend: str | Backend | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Verify and load one artifact.

        Args:
            bundle: that has it.
            artifact: to run; None for the best one.
            threads: of the runtime.
            trust: whose bundles ``swap`` accepts.
            backend: that runs it; None for that of the runtime it was made for.
            policy: as for ``open``.

        Raises:
            EdgedlError: as ``open``.
        """
        self._trust = trust
        self._wish = Wish(artifact, backend, policy, threads)
        # A call reads this once, and so has the same model from its begin to its end.
        self._model = self._wish.load(bundle)
        self._shadow: Shadow | None = None
        self._changing = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: Path,
        artifact: str | None = None,
        backend: str | Backend | None = None,
        threads: int = 1,
        trust: Trust | None = None,
        policy: Policy | None = None,
    ) -> "Runner":
        """Open a bundle and load the named artifact, or the recommended one.

        Args:
            folder: of the bundle.
            artifact: by name; None for the recommended one, or the first for the backend.
            backend: by name, or an object of your own; None for that of the artifact.
            threads: of the runtime.
            trust: whose bundles are accepted: those signed with one of its keys.
            policy: what happens where that cannot run here. "require": an error; also where another
                device computes a part of the file. "prefer": the next best artifact runs, and
                ``instead`` says why. "any": the next best runs. None for "require" where an
                artifact or a backend is named, else "prefer".

        Raises:
            BadInputError: there is no such artifact, or the runtime refuses the file.
            BackendUnavailableError: what is wanted cannot run here.
            IntegrityError: a file is not what the manifest says, or the bundle is not signed.
        """
        bundle = Bundle.open(folder, trust)
        chosen = None if artifact is None else bundle.artifact(artifact)
        return cls(bundle, chosen, threads, trust, backend, policy)

    @property
    def bundle(self) -> Bundle:
        """The bundle that the model is from."""
        return self._model.bundle

    @property
    def artifact(self) -> Artifact:
        """The artifact that runs."""
        return self._model.artifact

    @property
    def session(self) -> Session:
        """The runtime's session of it."""
        return self._model.session

    @property
    def placement(self) -> Placement:
        """Where it computes, and which operators something else computes."""
        return self._model.session.placement()

    @property
    def instead(self) -> str:
        """Why this runs and not what was asked for; empty where it is that."""
        return self._model.instead

    @property
    def differs(self) -> str:
        """How its golden outputs here differ from those where it was made; empty if not."""
        return self._model.differs

    @property
    def tried_s(self) -> float:
        """Seconds that it took to try a file that was new here; 0 if it was not."""
        return self._model.tried_s

    def __call__(self, *inputs: Array) -> tuple[Floats, ...]:
        """Run a batch of any size: float32 inputs [N, ...] -> float32 outputs [N, ...].

        Raises:
            BadInputError: wrong number, shape or type of inputs, or values that are not finite.
        """
        shadow = self._shadow
        if shadow is None:
            return self._model(*inputs)
        outputs, outcome = shadow(*inputs)
        if outcome is not None:
            self._end_shadow(shadow, outcome)
        return outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        """Run a batch of inputs by their names; return the outputs by theirs.

        Raises:
            BadInputError: a name is missing or unknown, or as a call.
        """
        manifest = self._model.bundle.manifest
        names = [spec.name for spec in manifest.inputs]
        for name in inputs:
            if name not in names:
                raise BadInputError(f"the network has no input '{name}'{meant(name, names)}")
        missing = [name for name in names if name not in inputs]
        if missing:
            raise BadInputError(f"input '{missing[0]}' is missing")
        outputs = self(*(inputs[name] for name in names))
        return {spec.name: y for spec, y in zip(manifest.outputs, outputs, strict=True)}

    def bind(self, *inputs: Array) -> Bound:
        """Return memory to write inputs into and read outputs from, for calls of these shapes.

        Each thread needs its own.

        Raises:
            BadInputError: as a call.
        """
        model = self._model
        return Bound(model, inputs, lambda: self._model is model and not self._closed)

    def submit(self, *inputs: Array) -> "Future[tuple[Floats, ...]]":
        """Run a batch in a thread of the runner, one after another in the order they came.

        What a call raises, ``result()`` raises. The arrays must not be changed before it is done.

        Raises:
            BadInputError: the runner is closed.
        """
        with self._changing:
            if self._closed:
                raise BadInputError("this runner is closed")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD)
            return self._pool.submit(self, *inputs)

    def stream(
        self,
        source: str | Path | Iterable[Inputs],
        drop: Drop = "wait",
        fps: float | None = None,
        stall_s: float | None = None,
    ) -> Iterator[Streamed[NamedInputs, tuple[Floats, ...]]]:
        """Yield the answers to inputs that come one after another, read by a thread of their own.

        Args:
            source: a file, a folder, a video, a camera ("camera:0"), the address of a stream, or
                "-" for stdin; or arrays of one's own, or tuples of them where there are several
                inputs.
            drop: what is given up where more comes than is computed: "wait" for nothing, "oldest"
                or "latest".
            fps: items a second; None for as fast as they come.
            stall_s: how long may pass without one; None for ever.

        Raises:
            SourceStalledError: nothing has come for ``stall_s``.
            BadInputError: as a call, or the source holds something else.
        """
        if isinstance(source, str | Path):
            items = read_inputs(str(source), self.bundle.manifest)
        else:
            tuples = (item if isinstance(item, tuple) else (item,) for item in source)
            items = (NamedInputs(str(index), item) for index, item in enumerate(tuples))
        return Stream(items, drop, fps, stall_s).answers(lambda item: self(*item.arrays))

    def swap(
        self,
        folder: Path,
        artifact: str | None = None,
        shadow: int = 0,
        max_slowdown: float = MAX_SLOWDOWN,
        trust: Trust | None = None,
    ) -> "Future[SwapOutcome]":
        """Replace the model while calls go on; none is lost, and each has one model's answer.

        The new one is loaded beside the old one and must give the golden outputs of its bundle.
        With ``shadow``, the next calls run both, and return what the old one computes. It is
        replaced after that many if the new one failed in none, gave no NaN or infinity where the
        old one gave numbers, and was not slower than ``max_slowdown`` times the old one (medians).

        Args:
            folder: bundle of the new model: the same inputs and outputs.
            artifact: of it; None as for ``open``.
            shadow: calls that run both.
            max_slowdown: most times as long that the new one may take.
            trust: whose bundles are accepted; None for those of the runner's own trust.

        Returns:
            what became of it, done at once without ``shadow``.

        Raises:
            BadInputError: it has other inputs or outputs, a swap is going on, or the runner is
                closed.
            IntegrityError: it is damaged, not signed, or computes something else than it must.
            BackendUnavailableError: its runtime is not installed.
        """
        bundle = Bundle.open(folder, trust or self._trust)
        old = self._model
        check_replacement(old.bundle.manifest, bundle.manifest)
        chosen = None if artifact is None else bundle.artifact(artifact)
        model = replace(self._wish, artifact=chosen).load(bundle)
        trial = Shadow(old, model, shadow, max_slowdown)
        with self._changing:
            if self._closed:
                raise BadInputError("this runner is closed")
            if self._shadow is not None or self._model is not old:
                raise BadInputError("another swap is going on")
            if shadow == 0:
                # The old one is not closed: calls that have it go on, and the last one frees it.
                self._model = model
                trial.future.set_result(SwapOutcome(True))
            else:
                self._shadow = trial
        return trial.future

    def _end_shadow(self, shadow: Shadow, outcome: SwapOutcome) -> None:
        with self._changing:
            # Several threads may see the last comparison; the first one ends it.
            if self._shadow is not shadow:
                return
            if outcome.accepted:
                self._model = shadow.new
            self._shadow = None
        shadow.future.set_result(outcome)

    def close(self) -> None:
        """Release the runtime's memory, after what was submitted; drop a swap that goes on."""
        with self._changing:
            self._closed = True
            shadow, self._shadow = self._shadow, None
            pool, self._pool = self._pool, None
        if shadow is not None:
            shadow.future.set_result(SwapOutcome(False, "the runner was closed"))
        try:
            if pool is not None:
                # What a call of its own thread waits for would never come.
                own = current_thread().name.startswith(THREAD)
                pool.shutdown(wait=not own)
        finally:
            self._model.close()
