"""A Python module run so that it ends when its parent does, however the parent ends.

`python -m flows.serving.tethered MODULE ARGUMENTS` is `python -m MODULE ARGUMENTS` with one difference: when its
standard input is closed, which the system does for a parent that is killed, it is told to end, and after a while made
to.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 20


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock Python wants when it ends by itself
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Runs the module that the command line names."""
    module, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with_parent, name="tether", daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
