"""Run one command that cannot outlive the process that asked for it. A script of its own: it imports nothing of ours.

    python -I -S tether.py JSON

PR_SET_PDEATHSIG alone would not do: it fires when the *thread* that forked ends, so a server started in a worker thread
would die with that thread. This process stands between. It watches whether its parent process is still the one that it
began with, and the command's own PDEATHSIG follows this process, which has one thread. So whichever of the two is
killed, the command goes too.

The JSON object has:

    parent      the pid of the process that asked
    pid_fd      an open file descriptor that the command's pid is written to
    grace_s     how long the command may take to end after a SIGTERM to this process, which is passed on; then, at a
                second SIGTERM or at a SIGQUIT, it is killed with all that it started
    command     what to run
    cleanup     commands to run when it has ended, their output and failures ignored
    shm_prefix  shared memory to remove in the end, by the beginning of its name; "" for none
    scratch     a folder to remove when the parent is gone, since nobody else will
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
CHECK_EVERY_S = 0.3
CLEANUP_TIMEOUT_S = 60
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


def start(command: list[str]) -> int:
    """Fork and exec the command in a process group of its own; returns its pid."""
    libc = ctypes.CDLL(None, use_errno=True)
    tether = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != tether:  # it died between the fork and the prctl
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be run: {error}\n".encode())
    os._exit(127)


def wait(child: int, parent: int, grace_s: float) -> bool:
    """Return once the command has ended, not yet reaped; whether the parent was gone by then."""
    deadline = float("inf")
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if os.getppid() != parent:
            kill_group(child)
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            return True
        info = signal.sigtimedwait(WATCHED, CHECK_EVERY_S)
        if info is not None and info.si_signo != signal.SIGCHLD:
            if deadline < float("inf") or info.si_signo == signal.SIGQUIT:
                deadline = 0.0
            else:
                os.kill(child, signal.SIGTERM)
                deadline = time.monotonic() + grace_s
        if time.monotonic() > deadline:
            kill_group(child)
            deadline = float("inf")
    return os.getppid() != parent


def kill_group(child: int) -> None:
    """Kill the command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def clean_up(commands: list[list[str]], shm_prefix: str) -> None:
    """Remove what the command may have left."""
    for command in commands:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command, timeout=CLEANUP_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL, capture_output=True
            )
    for path in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*") if shm_prefix else []:
        with contextlib.suppress(OSError):
            os.unlink(path)


def main() -> int:
    """Run the command; returns its exit code, or 128 and the signal's number."""
    asked = json.loads(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    if os.getppid() != asked["parent"]:  # it died before we looked for the first time
        shutil.rmtree(asked["scratch"], ignore_errors=True)
        return 1
    os.set_inheritable(asked["pid_fd"], False)
    child = start(asked["command"])
    os.write(asked["pid_fd"], f"{child}\n".encode())
    os.close(asked["pid_fd"])
    orphaned = wait(child, asked["parent"], asked["grace_s"])
    kill_group(child)  # before reaping: while the pid is ours, the group is
    _, status = os.waitpid(child, 0)
    clean_up(asked["cleanup"], asked["shm_prefix"])
    if orphaned:
        shutil.rmtree(asked["scratch"], ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
