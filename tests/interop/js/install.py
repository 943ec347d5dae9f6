"""Install the Node packages of this directory, as its lock file has them, into its node_modules.

Run by tox before the interop tests. Two tries, each bounded; does nothing when they are in place. Without npm, or when
both tries fail, it says so and exits by 0, because the tests then skip with a reason, unless SIMPLEPUBSUB_REQUIRE_PEERS
is set: then it exits by 1.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: In node_modules: the hash of the lock file that it was made from.
STAMP = HERE / "node_modules" / ".simplepubsub-lock"
#: Seconds for one try.
BOUND = 300
REQUIRED = os.environ.get("SIMPLEPUBSUB_REQUIRE_PEERS", "") not in ("", "0")


def main() -> int:
    """Install and return the exit status."""
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return 0
    npm = shutil.which("npm")
    if npm is None:
        return failed("npm is not installed")
    reason = ""
    for _ in range(2):
        reason = install(npm)
        if not reason:
            STAMP.write_text(wanted)
            return 0
        print(reason, file=sys.stderr)
    return failed(reason)


def install(npm: str) -> str:
    """Return why it did not work, "" when it did."""
    try:
        subprocess.run(
            [npm, "ci", "--loglevel=error"],
            cwd=str(HERE),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=BOUND,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


def failed(reason: str) -> int:
    """Say that the packages are missing and return the exit status."""
    print("no JavaScript peers: " + reason, file=sys.stderr)
    return 1 if REQUIRED else 0


if __name__ == "__main__":
    sys.exit(main())
