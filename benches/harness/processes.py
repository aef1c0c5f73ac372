"""Processes that end with the benchmark, and what the kernel says of them."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

PAGE = os.sysconf("SC_PAGE_SIZE")


class Processes:
    """Ends what it started."""

    def __enter__(self):
        self.started = []
        return self

    def start(self, command, log=subprocess.DEVNULL, before=None):
        """`before` is called in the new process before the command replaces it."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=before)
        self.started.append(process)
        return process

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def cpu(process):
    """Seconds of user and system time of a process and its children: what the scheduler counted, in nanoseconds; the
    times in /proc/PID/stat are sampled by a tick, which short bursts of work escape."""
    return sum(_on_cpu(f"/proc/{pid}/task/{task}/schedstat") for pid in _family(process) for task in _tasks(pid)) / 1e9


def cpu_by_thread(process):
    """The same for each thread of a process, by its name; threads of one name together."""
    used = {}
    for task in _tasks(process.pid):
        with open(f"/proc/{process.pid}/task/{task}/comm") as file:
            name = file.read().strip()
        used[name] = used.get(name, 0) + _on_cpu(f"/proc/{process.pid}/task/{task}/schedstat") / 1e9
    return used


def sockets_by_poll(process):
    """The sockets that each epoll of a process looks at. A descriptor that is a copy of another counts once."""
    folder = f"/proc/{process.pid}"
    found = {}
    for number in os.listdir(f"{folder}/fd"):
        try:
            if os.readlink(f"{folder}/fd/{number}") != "anon_inode:[eventpoll]":
                continue
            with open(f"{folder}/fdinfo/{number}") as file:
                seen = {line.split()[1] for line in file if line.startswith("tfd:")}
        except FileNotFoundError:
            continue
        if seen not in found.values():
            found[int(number)] = seen
    return found


def memory(process):
    """Resident MiB of a process and its children."""
    return sum(int(_stat(pid)[21]) for pid in _family(process)) * PAGE / 2**20


def resident(process):
    """Resident bytes of a process: all (`rss`), what only it has and would have to be kept elsewhere (`own`), and pages of
    files, which the kernel may drop and read again (`file`)."""
    with open(f"/proc/{process.pid}/smaps_rollup") as file:
        fields = dict(line.split(":") for line in list(file)[1:])
    kind = {name: int(value.split()[0]) << 10 for name, value in fields.items()}
    return {"rss": kind["Rss"], "own": kind["Anonymous"], "file": kind["Rss"] - kind["Anonymous"]}


def _tasks(pid):
    return os.listdir(f"/proc/{pid}/task")


def _on_cpu(path):
    with open(path) as file:
        return int(file.read().split()[0])


def _stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(") ", 1)[1].split()


def _family(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [process.pid, *map(int, file.read().split())]


def ports(count):
    """Free ports, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    chosen = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return chosen


def accepts(port):
    """Waits until something listens there."""
    _until(f"port {port}", lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close())


def answers(url):
    """Waits until a GET is answered with 200."""
    _until(url, lambda: urllib.request.urlopen(url, timeout=1).close())


def listening(log, names):
    """The ports that readygate says it listens on, by listener; `admin` is the admin port."""
    found = {}

    def look():
        with open(log) as file:
            for line in file:
                said = json.loads(line) if line.startswith("{") else {}
                said = said.get("fields", said)
                if said.get("message") == "listening":
                    found[said.get("listener", "admin")] = int(said["address"].rsplit(":", 1)[1])
        if not set(names) <= set(found):
            raise OSError("not yet")

    _until(f"{log}: readygate", look)
    return found


def _until(what, attempt):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            return attempt()
        except (OSError, http.client.HTTPException):
            time.sleep(0.001)
    sys.exit(f"{what} does not answer")
