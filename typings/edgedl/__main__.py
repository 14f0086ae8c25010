"""Lets ``python -m edgedl`` stand in for the ``edgedl`` command."""

from edgedl.tools.cli import main

main()
