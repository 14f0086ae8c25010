"""What is compressed, and its data. A user's own file imports ``Subject`` from here."""

from edgedl.compress.subject.subject import Subject

__all__ = ["Subject"]
