"""A child that does not outlive its parent: it asks the kernel for a signal when the parent dies, then becomes the command.

Run as a file by an isolated interpreter (30 ms), never imported by reki: ``python -I -S launch.py STARTS SIGNAL COMMAND...``.
STARTS is a file that gets one line per start (the supervisor keeps no count of restarts), or ``-``. SIGNAL 0: no tie.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives exec


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then exec the command."""
    starts, death_signal, *command = arguments
    parent = os.getppid()
    if int(death_signal) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew
            sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's `&` hands down "ignored", and milvus-lite stops on SIGINT
    if starts != "-":
        with open(starts, "a", encoding="ascii") as file:  # noqa: PTH123 - pathlib would double this file's start-up time
            file.write(f"{os.getpid()} {time.time():.3f}\n")
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose of this file


if __name__ == "__main__":
    main(sys.argv[1:])
