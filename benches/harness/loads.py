"""The loads: each runs for some seconds against one port and says how many requests were answered, and how fast."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Done:
    requests: int
    p50_ms: float
    p99_ms: float


@dataclass
class Load:
    """`port` names what a peer must carry; `goals` are the issue's, as ratios to peers."""

    name: str
    port: str
    run: object
    goals: dict


def _text(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def wrk(path, connections, headers=(), script=None):
    def run(port, seconds):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        for header in headers:
            command += ["-H", header]
        if script:
            command += ["-s", os.path.join(HERE, script)]
        output = _text([*command, f"http://127.0.0.1:{port}{path}"])
        if "Non-2xx" in output or re.search(r"Socket errors: .*(read|timeout) [1-9]", output):
            sys.exit(f"errors under load:\n{output}")
        requests = int(re.search(r"(\d+) requests in", output).group(1))
        return Done(requests, _latency(output, "50%"), _latency(output, "99%"))

    return run


def _latency(output, quantile):
    number, unit = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s)", output).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def h2load(path, clients, streams):
    """h2load prints no quantiles: its mean stands for p50, its maximum for p99."""

    def run(port, seconds):
        command = ["h2load", f"-D{seconds}", f"-c{clients}", f"-m{streams}", f"http://127.0.0.1:{port}{path}"]
        output = _text(command)
        total, succeeded = map(
            int, re.search(r"requests: (\d+) total.* (\d+) succeeded", output).groups()
        )
        if succeeded == 0 or re.search(r" [1-9]\d* (failed|errored)", output):
            sys.exit(f"errors under load ({total} sent):\n{output}")
        numbers = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", output).groups()
        return Done(succeeded, _millis(numbers[2]), _millis(numbers[1]))

    return run


def _millis(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def echo(connections):
    def run(port, seconds):
        command = [sys.executable, os.path.join(HERE, "echo.py"), "load", str(port), str(connections), str(seconds)]
        echoes, p50, p99 = _text(command).split()
        return Done(int(echoes), float(p50), float(p99))

    return run


HTTP = {"nginx": 0.9, "haproxy": 0.8}

LOADS = [
    Load("GET 1 KiB, 64 connections", "http", wrk("/1k", 64), HTTP),
    Load("GET 1 KiB, 1 connection", "http", wrk("/1k", 1), HTTP),
    Load("GET 1 KiB, 1000 connections", "http", wrk("/1k", 1000), HTTP),
    Load("GET 1 KiB, a connection each", "http", wrk("/1k", 16, ["Connection: close"]), HTTP),
    Load("POST 16 KiB, 32 connections", "http", wrk("/sink", 32, script="post.lua"), HTTP),
    Load("GET 1 MiB, 8 connections", "http", wrk("/1m", 8), HTTP),
    Load("HTTP/2 to HTTP/1.1, 8 × 32 streams", "h2", h2load("/1k", 8, 32), HTTP),
    Load("WebSocket echo, 32 connections", "echo", echo(32), {"haproxy": 1.1}),
    Load("TCP, GET 1 KiB, 64 connections", "tcp", wrk("/1k", 64), {"haproxy": 1.1}),
]


def measure(load, peer, seconds, cpu):
    """One measurement: microseconds of CPU a request, requests a second, p50, p99."""
    before, began = cpu(peer.process), time.monotonic()
    done = load.run(peer.ports[load.port], seconds)
    used, took = cpu(peer.process) - before, time.monotonic() - began
    return used / done.requests * 1e6, done.requests / took, done.p50_ms, done.p99_ms
