"""``python -m simplepubsub``: the same as the ``simplepubsub`` command."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
