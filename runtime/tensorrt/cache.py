"""Engines that were built on this machine, by all that they depend on.

An engine is a program: one is loaded only from the user's own folder, where nobody else can write,
and only if its bytes are those that were put there.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.gpu import Gpu
from edgedl.runtime.own_folder import refuse_foreign, user_folder, write_own
from edgedl.runtime.tensorrt.build import BuildSettings, Built

# Where engines are kept instead of the user's cache folder.
PLACE = "EDGEDL_ENGINES"
RECORD, SUFFIX = "engine.json", ".plan"


class EngineKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine depends on.

    Attributes:
        model_sha256: of the ONNX file.
        version: of the library.
        gpu, compute_capability, driver: that it was built on.
        settings: that it was built with; they name the library.
    """

    model_sha256: str
    version: str
    gpu: str
    compute_capability: str
    driver: str
    settings: BuildSettings

    @classmethod
    def of(cls, model: bytes, version: str, gpu: Gpu, settings: BuildSettings) -> "EngineKey":
        """Return the key of an engine of an ONNX file on a GPU."""
        digest = hashlib.sha256(model).hexdigest()
        return cls(digest, version, gpu.name, gpu.compute_capability, gpu.driver, settings)

    @property
    def digest(self) -> str:
        """A short name of all of it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]

    def difference(self, other: "EngineKey") -> str:
        """Say in what another engine of the same file differs."""
        parts = []
        for name in ("version", "gpu", "compute_capability", "driver"):
            was, now = getattr(other, name), getattr(self, name)
            if was != now:
                what = f"{self.settings.library} version" if name == "version" else name
                parts.append(f"{what.replace('_', ' ')} was {was}, is {now}")
        if other.settings != self.settings:
            parts.append("other settings")
        return "; ".join(parts)


class EngineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside an engine: its key, and what its bytes must be."""

    key: EngineKey
    size_bytes: int
    sha256: str
    on_gpu: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineCache:
    """A folder of engines.

    Attributes:
        folder: that they are in; made when the first is kept.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> "EngineCache":
        """Return the cache of this user: ``$EDGEDL_ENGINES``, or in the user's cache folder."""
        return cls(user_folder("engines", PLACE))

    def load(self, key: EngineKey) -> Built | None:
        """Return the engine of a key; None where there is none.

        Raises:
            IntegrityError: somebody else can write where it is, or it is not what was put there.
        """
        place = self.folder / key.digest
        if not (place / RECORD).exists():
            return None
        for path in (self.folder, place, place / RECORD):
            refuse_foreign(path)
        try:
            record = msgspec.json.decode((place / RECORD).read_bytes(), type=EngineRecord)
        except msgspec.DecodeError as error:
            raise IntegrityError(f"{place / RECORD} is damaged: remove {place}") from error
        plan = place / f"{record.sha256}{SUFFIX}"
        if not plan.exists():
            return None
        refuse_foreign(plan)
        engine = plan.read_bytes()
        known = (record.size_bytes, record.sha256, record.key)
        if known != (len(engine), hashlib.sha256(engine).hexdigest(), key):
            raise IntegrityError(f"{plan} was changed or damaged: remove {place}")
        return Built(engine, on_gpu=record.on_gpu, profile=key.settings.profile)

    def check(self) -> None:
        """Refuse a folder from which nothing would be loaded.

        Raises:
            IntegrityError: others than the user can write it.
        """
        if self.folder.exists():
            refuse_foreign(self.folder)

    def keep(self, key: EngineKey, built: Built) -> None:
        """Keep an engine.

        Raises:
            OSError: the folder cannot be written; nothing is left there.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self.folder / key.digest
        place.mkdir(mode=0o700, exist_ok=True)
        digest = hashlib.sha256(built.engine).hexdigest()
        record = EngineRecord(key, len(built.engine), digest, built.on_gpu)
        # The record comes last: an engine without one is none. It names its own engine, so that
        # two builds at the same time do not mix.
        write_own(place / f"{digest}{SUFFIX}", built.engine)
        write_own(place / RECORD, msgspec.json.encode(record))
        if built.timings:
            write_own(self._timings(key), built.timings)

    def settings(self, model: bytes, library: str) -> BuildSettings | None:
        """Return the settings that were kept for a file; None where there are none."""
        path = self._settings(model, library)
        if not path.exists():
            return None
        refuse_foreign(path)
        try:
            return msgspec.json.decode(path.read_bytes(), type=BuildSettings)
        except msgspec.DecodeError as error:
            raise IntegrityError(f"{path} is damaged: remove it") from error

    def keep_settings(self, model: bytes, settings: BuildSettings) -> None:
        """Keep how engines of a file are built from now on.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_own(self._settings(model, settings.library), msgspec.json.encode(settings))

    def timings(self, key: EngineKey) -> bytes:
        """Return the times of kernels that builds with the same library and GPU have left."""
        path = self._timings(key)
        if not path.exists():
            return b""
        refuse_foreign(path)
        return path.read_bytes()

    def why_not(self, key: EngineKey) -> str:
        """Say why there is no engine of a key: what differs from the one of the same file."""
        for path in sorted(self.folder.glob(f"*/{RECORD}"), key=_changed, reverse=True):
            try:
                other = msgspec.json.decode(path.read_bytes(), type=EngineRecord).key
            except (OSError, msgspec.DecodeError):
                continue
            if other.model_sha256 == key.model_sha256:
                return key.difference(other)
        return "this file was not compiled here yet"

    def _settings(self, model: bytes, library: str) -> Path:
        return self.folder / f"{hashlib.sha256(model).hexdigest()[:32]}.{library}.json"

    def _timings(self, key: EngineKey) -> Path:
        of = (key.settings.library, key.version, key.gpu, key.compute_capability, key.driver)
        name = hashlib.sha256(repr(of).encode()).hexdigest()[:32]
        return self.folder / f"{name}.timings"


def kept_or_built(
    cache: EngineCache,
    key: EngineKey,
    build: Callable[[bytes], Built],
    say: Callable[[str], None],
) -> Built:
    """Return the engine of a key from a cache, or build it and keep it.

    Args:
        cache: of engines.
        key: of the engine.
        build: builds it; takes the times of kernels of earlier builds.
        say: is told in one line why it is built, and why it could not be kept.

    Raises:
        IntegrityError: what is kept is not to be trusted.
    """
    cache.check()
    found = cache.load(key)
    if found is not None:
        return found
    say(f"an engine for {key.gpu} is built, which can take minutes: {cache.why_not(key)}")
    built = build(cache.timings(key))
    try:
        cache.keep(key, built)
    except OSError as error:
        say(f"the engine is not kept for the next time: {error}")
    return built


def _changed(path: Path) -> float:
    return path.stat().st_mtime
