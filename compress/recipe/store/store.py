"""A folder of results of stages, shared by all runs of a user."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as with_fields
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from edgedl.compress.recipe.store.ingredients import Ingredients
from edgedl.compress.recipe.store.stored_state import (
    DamagedResultError,
    StageRecord,
    read_record,
    read_state,
    write_state,
)
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError, EdgedlError

SUFFIX = ".safetensors"
# A run that was cut off leaves its checkpoints here, beside the results.
UNFINISHED = ".unfinished"
# A safetensors file begins with the length of its header.
LENGTH_BYTES = 8


@dataclass(frozen=True)
class Kept:
    """A result, or the checkpoints of a stage that was cut off.

    Attributes:
        key: its name.
        record: what is known of it; None for checkpoints, and for a damaged file.
        size_bytes: on disk.
        used: when it was last written or read, in seconds since 1970.
        damaged: whether it is a result that cannot be read.
    """

    key: str
    record: StageRecord | None
    size_bytes: int
    used: float
    damaged: bool = False


class StageStore:
    """Results of stages by key.

    A result is one file that appears whole or not at all. Two runs that come to the same stage
    compute it once: the second waits. The system frees the lock of a run that was killed.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder, which is made if it is not there.

        Raises:
            BadInputError: it cannot be made.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"{folder}, the cache folder for results of stages, cannot be written "
                f"({error.strerror})"
            ) from error

    def apply(self, stage: Stage, state: ModelState, ingredients: Ingredients) -> ModelState:
        """Return the state after a stage: the kept one, or a new one, which is kept.

        While the stage works, its workspace is a folder that outlives a run that is cut off.

        Args:
            stage: to apply.
            state: before it; it says where a result is reused, waited for, or cannot be
                kept.
            ingredients: all that the result depends on.

        Raises:
            EdgedlError: the stage cannot be applied; earlier results stay.
        """
        key, say = ingredients.key(), state.progress.note
        if not os.access(self.folder, os.W_OK | os.X_OK):
            say(f"{ingredients.stage}: its result is not cached, {self.folder} cannot be written")
            return stage.apply(state)
        with self._locked(
            key, lambda: say(f"waiting for another run that computes {ingredients.stage}")
        ):
            found = self.find(key, stage, state)
            if found is not None:
                say(f"{ingredients.stage}: reused {key}")
                self._file(key).touch()
                return found
            workspace = self.folder / f"{key}{UNFINISHED}"
            workspace.mkdir(exist_ok=True)
            start = time.monotonic()
            try:
                done = stage.apply(with_fields(state, workspace=workspace))
            finally:
                if not any(workspace.iterdir()):
                    workspace.rmdir()
            seconds = time.monotonic() - start
            done = with_fields(done, workspace=state.workspace)
            self._keep(key, stage, state, done, ingredients, seconds)
            shutil.rmtree(workspace, ignore_errors=True)
            return done

    def contents(self) -> list[Kept]:
        """Return what is there, the longest unused first."""
        files = [self._describe(path) for path in self.folder.glob(f"*{SUFFIX}")]
        cut_off = [
            Kept(path.name.removesuffix(UNFINISHED), None, _size(path), path.stat().st_mtime)
            for path in self.folder.glob(f"*{UNFINISHED}")
        ]
        return sorted([*files, *cut_off], key=lambda kept: kept.used)

    def in_use(self, key: str) -> bool:
        """Say whether a run is at this stage now."""
        try:
            with FileLock(self._lock_path(key), timeout=0):
                return False
        except Timeout:
            return True

    def remove(self, kept: Kept) -> bool:
        """Remove a result or checkpoints, unless a run is at this stage now; say whether."""
        try:
            with FileLock(self._lock_path(kept.key), timeout=0):
                self._file(kept.key).unlink(missing_ok=True)
                shutil.rmtree(self.folder / f"{kept.key}{UNFINISHED}", ignore_errors=True)
        except Timeout:
            return False
        # The lock's empty file stays: a run may be about to take it.
        return True

    @contextmanager
    def _locked(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        lock = FileLock(self._lock_path(key))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def find(self, key: str, stage: Stage, before: ModelState) -> ModelState | None:
        """Return the kept state after a stage, from the state before it; None if there is none.

        The state's progress says where a file is damaged.
        """
        path = self._file(key)
        if not path.is_file():
            return None
        try:
            return read_state(stage, before, path.read_bytes())
        except DamagedResultError as error:
            before.progress.note(f"{path} is damaged ({error}): the stage is applied again")
            return None

    def _keep(
        self,
        key: str,
        stage: Stage,
        before: ModelState,
        after: ModelState,
        ingredients: Ingredients,
        seconds: float,
    ) -> None:
        """Write a result; a run does not fail because it cannot be kept."""
        try:
            content = write_state(stage, before, after, ingredients, seconds)
            if content is None:
                return
            with atomic_write(self._file(key)) as out:
                out.write(content)
        except (OSError, EdgedlError, RuntimeError) as error:
            before.progress.note(f"{ingredients.stage}: its result is not cached ({error})")

    def _describe(self, path: Path) -> Kept:
        with path.open("rb") as file:
            size = file.read(LENGTH_BYTES)
            length = min(int.from_bytes(size, "little"), path.stat().st_size)
            head = size + file.read(length)
        try:
            record = read_record(head)
        except DamagedResultError:
            record = None
        status = path.stat()
        key, damaged = path.name.removesuffix(SUFFIX), record is None
        return Kept(key, record, status.st_size, status.st_mtime, damaged)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _lock_path(self, key: str) -> Path:
        return self.folder / f"{key}.lock"


def user_store() -> StageStore:
    """Return the store in the user's cache folder.

    Raises:
        BadInputError: it cannot be made.
    """
    return StageStore(user_cache_path("edgedl") / "stages")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
