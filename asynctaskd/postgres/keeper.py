"""The process that stops the embedded server once nobody uses it any more.

`embedded` starts it as a script of its own, so it imports the standard library and nothing else: it lives as
long as the server does and should cost next to nothing. Every process that uses the server holds a shared
lock on the file `users`, and the kernel takes that lock away however the process ends. So the exclusive lock
is the moment at which nobody is left, and while it is held nobody can come.

    python keeper.py USERS KEEPER_FD STOP_COMMAND...
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys


def keep(users: str, keeper: int, stop: list[str]) -> None:
    """Wait until `users` is free, then run `stop`. `keeper` is the locked descriptor that says "here"."""
    users_fd = os.open(users, os.O_RDWR)
    fcntl.flock(users_fd, fcntl.LOCK_EX)
    # Not our output: it would keep a pipe open that somebody may be reading to its end.
    subprocess.run(stop, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    # In this order. The next user waits for `users` and then looks whether there is a keeper.
    os.close(keeper)
    os.close(users_fd)


if __name__ == "__main__":
    # The starter waits for the parent and so has no child to reap; the child belongs to init.
    if os.fork() == 0:
        # The starter reads its output to the end.
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        keep(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
