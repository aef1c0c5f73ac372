"""The proxies, each with one worker in front of the same backends, and the backends."""

import os
import shutil
import sys
import time
from dataclasses import dataclass, field

from . import processes
from .processes import accepts, answers, listening, ports

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Peer:
    """A running proxy: its ports by what they carry (`http`, `h2`, `tcp`), as far as it carries it."""

    name: str
    process: object
    ports: dict
    startup_ms: float = 0.0
    idle_mib: float = 0.0
    seen: dict = field(default_factory=dict)


@dataclass
class Backends:
    """What stands for the app: files and POST by nginx, and an echo."""

    http: int
    echo: int


def require(*tools):
    """Ends the program where one of (command, Debian package) is missing."""
    missing = [f"{tool} (Debian: {package})" for tool, package in tools if not shutil.which(tool)]
    if missing:
        sys.exit("missing: " + ", ".join(missing))


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def backends(folder, started):
    """Starts them."""
    http, echo = ports(2)
    for name, size in (("1k", 1024), ("1m", 2**20)):
        write(folder, name, "a" * size)
    body = f"""server {{ listen 127.0.0.1:{http} backlog=4096; root .;
      location /post {{ client_max_body_size 0; client_body_buffer_size 64k; proxy_pass http://127.0.0.1:{http}/sink; }}
      location /sink {{ return 200 "ok"; }} }}"""
    started.start(["nginx", "-p", folder, "-c", write(folder, "backend.conf", _nginx("backend", body))])
    started.start([sys.executable, os.path.join(HERE, "echo.py"), "serve", str(echo)])
    answers(f"http://127.0.0.1:{http}/1k")
    accepts(echo)
    return Backends(http, echo)


LISTENERS = ("http", "echo", "tcp")


def readygate(folder, started, backends, binary, workers=1, before=None, listeners=LISTENERS):
    if not os.path.exists(binary):
        sys.exit(f"{binary} is missing: cargo build --release")
    upstreams = {
        "http": f"http://127.0.0.1:{backends.http}",
        "echo": f"http://127.0.0.1:{backends.echo}",
        "tcp": f"tcp://127.0.0.1:{backends.http}",
    }
    listening_at = "".join(f'  {name}: {{ listen: "127.0.0.1:0", upstream: "{upstreams[name]}" }}\n' for name in listeners)
    config = f"""
listeners:
{listening_at}
admin: {{ listen: "127.0.0.1:0" }}
drain: {{ min: 10ms, quiet: 10ms, deadline: 1s }}
workers: {workers}
"""
    path = write(folder, "readygate.yaml", config)
    began = time.monotonic()
    log = os.path.join(folder, "readygate.log")
    with open(log, "w") as file:
        process = started.start([binary, "run", "--config", path], log=file, before=before)
    found = listening(log, (*listeners, "admin"))
    answers(f"http://127.0.0.1:{found['admin']}/startup")
    startup_ms = (time.monotonic() - began) * 1e3
    answers(f"http://127.0.0.1:{found['admin']}/ready")
    return Peer("readygate", process, found | {"h2": found["http"]}, startup_ms)


def nginx(folder, started, backends):
    http, h2, echo = ports(3)
    upstream = lambda port: f"server 127.0.0.1:{port}; keepalive 1024; keepalive_requests 1000000000;"
    headers = """proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;"""
    body = f"""
upstream app {{ {upstream(backends.http)} }}
upstream echo {{ {upstream(backends.echo)} }}
server {{ listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{h2} http2 backlog=4096;
  location / {{ proxy_pass http://app; {headers} proxy_set_header Connection ""; }} }}
server {{ listen 127.0.0.1:{echo};
  location / {{ proxy_pass http://echo; {headers}
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}"""
    began = time.monotonic()
    process = started.start(["nginx", "-p", folder, "-c", write(folder, "proxy.conf", _nginx("proxy", body))])
    answers(f"http://127.0.0.1:{http}/1k")
    return Peer("nginx", process, {"http": http, "h2": h2, "echo": echo}, (time.monotonic() - began) * 1e3)


def haproxy(folder, started, backends):
    """`mode http` and `mode tcp` in one process: only one of its ports is under load at a time."""
    http, h2, echo, tcp = ports(4)
    config = f"""
global
  nbthread 1
  maxconn 4000
defaults
  timeout connect 1s
  timeout client 75s
  timeout server 75s
  timeout tunnel 1h
  option http-keep-alive
  http-reuse always
frontend http
  mode http
  bind 127.0.0.1:{http}
  bind 127.0.0.1:{h2} proto h2
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  default_backend app
backend app
  mode http
  server app 127.0.0.1:{backends.http}
frontend echo
  mode http
  bind 127.0.0.1:{echo}
  option forwardfor
  default_backend echo
backend echo
  mode http
  server echo 127.0.0.1:{backends.echo}
listen tcp
  mode tcp
  bind 127.0.0.1:{tcp}
  server app 127.0.0.1:{backends.http}
"""
    path = write(folder, "haproxy.cfg", config)
    began = time.monotonic()
    process = started.start(["haproxy", "-db", "-f", path])
    answers(f"http://127.0.0.1:{http}/1k")
    ports_ = {"http": http, "h2": h2, "echo": echo, "tcp": tcp}
    return Peer("haproxy", process, ports_, (time.monotonic() - began) * 1e3)


def settle(peers):
    """Notes what each takes while nothing happens."""
    for peer in peers:
        peer.idle_mib = processes.memory(peer.process)


def _nginx(name, body):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {name}-{kind};" for kind in kinds)
    return f"""worker_processes 1; daemon off; pid {name}.pid; error_log {name}.log; worker_rlimit_nofile 16000;
{'user root;' if os.getuid() == 0 else ''}
events {{ worker_connections 8000; }}
http {{ access_log off; keepalive_requests 1000000000; {temporary} {body} }}
"""
