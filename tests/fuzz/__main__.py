"""Run the fuzzer from the command line; the exit status is 1 when it found something."""

from __future__ import annotations

import sys

from .runner import main

if __name__ == "__main__":
    sys.exit(main())
