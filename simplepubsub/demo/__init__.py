"""The ``demo`` command: a text file travels line by line through a network that is cut again and again."""

from __future__ import annotations

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
