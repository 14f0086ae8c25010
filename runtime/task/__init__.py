"""What a network is for. A user's own file imports these from here."""

from edgedl.runtime.task.task import ArrayTask, Batch, Samples, Task

__all__ = ["ArrayTask", "Batch", "Samples", "Task"]
