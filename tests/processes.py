"""Runs as processes of their own, what descends from them, and their end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from project import Project

REPOSITORY = Path(__file__).resolve().parents[1]


def start(project: Project, log: Path, *more: str) -> "subprocess.Popen[bytes]":
    """The whole pipeline, in a session and a Ray of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "jobs/pipeline.py", *project.arguments("pipeline")[1:], *more]
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )


def family(parent: int) -> dict[int, str]:
    """Command lines of a process and of all that descend from it."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = command_line(int(folder.name))
    found, wanted = {parent: lines.get(parent, "")}, {parent}
    while wanted:
        wanted = {pid for pid, above in parents.items() if above in wanted}
        found |= {pid: lines.get(pid, "") for pid in wanted}
    return found


def command_line(pid: int) -> str:
    """A process's command line; nothing where there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def kill(pids: Iterable[int]) -> None:
    """SIGKILL to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(process: "subprocess.Popen[bytes]", known: dict[int, str]) -> None:
    """Wait for what a killed driver left behind: Ray's workers notice, and end by themselves; its agents linger."""
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(command_line(pid).startswith("ray::") for pid in known):
        time.sleep(0.1)
    kill(known)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port: int, head: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a head listens on a port."""
    while True:
        assert head.poll() is None, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)


def kill_all_of(folder: Path) -> None:
    """End a cluster's daemons, which name its folder; workers end by themselves then."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
