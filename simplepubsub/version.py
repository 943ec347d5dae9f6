"""Hold the version number. It is written here only; ``setup.py`` reads it without importing the package."""

from __future__ import annotations

__version__ = "0.1.0"
