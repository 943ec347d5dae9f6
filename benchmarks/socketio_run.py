"""Compare the Socket.IO clients with python-socketio's in one run, on the real Node server; the options of run.py.

It needs python-socketio[client], and Node with the packages of tests/interop/js. Two minutes, more on a busy machine.
"""
from __future__ import annotations

import sys

import run
from socketio_measures import MEASURES, OURS, OURS_SIMPLE

if __name__ == "__main__":
    sys.exit(run.main(MEASURES, (OURS, OURS_SIMPLE)))
