"""Run one command that cannot outlive the process that asked for it. A script of its own: it imports nothing of ours.

    python -I -S tether.py PARENT_PID GRACE_S PID_FD SCRATCH SHM_PREFIX COMMAND...

PR_SET_PDEATHSIG alone would not do: it fires when the *thread* that forked ends, so a server started in a worker thread
would die with that thread. This process stands between. It watches whether its parent process is still the one that it
began with, and the command's own PDEATHSIG follows this process, which has one thread. So whichever of the two is
killed, the command goes too.

SIGTERM is passed on; after GRACE_S seconds, at a second SIGTERM or at a SIGQUIT, the command is killed with all that it
started. The command's pid is written to PID_FD. In the end the shared memory under SHM_PREFIX is removed, and, when
the parent is gone and nobody else will, the folder SCRATCH.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
CHECK_EVERY_S = 0.3
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


def main() -> int:
    """Run the command; returns its exit code, or 128 and the signal's number."""
    parent, grace_s, pid_fd = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    scratch, shm_prefix, command = sys.argv[4], sys.argv[5], sys.argv[6:]
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    if os.getppid() != parent:  # it died before we looked for the first time
        shutil.rmtree(scratch, ignore_errors=True)
        return 1
    os.set_inheritable(pid_fd, False)
    child = start(command)
    os.write(pid_fd, f"{child}\n".encode())
    os.close(pid_fd)
    orphaned = wait(child, parent, grace_s)
    kill_group(child)  # before reaping: while the pid is ours, the group is
    _, status = os.waitpid(child, 0)
    for path in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):
        os.unlink(path)
    if orphaned:
        shutil.rmtree(scratch, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
