"""An app that grants an upgrade to WebSocket and echoes bytes, and a client that counts echoes.

    echo.py serve PORT
    echo.py load PORT CONNECTIONS SECONDS     # prints the number of echoes, p50 and p99 in ms

Raw sockets and one epoll each: the load must cost less than what is measured. Frames are masked with zeros, so that
the server may send back what it got but for the mask.
"""

import selectors
import socket
import sys
import time

MESSAGE = b"m" * 100
FRAME = bytes([0x82, 0x80 | len(MESSAGE), 0, 0, 0, 0]) + MESSAGE
ECHO = bytes([0x82, len(MESSAGE)]) + MESSAGE
ASK = (
    b"GET / HTTP/1.1\r\nhost: echo\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GRANT = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def serve(port):
    chosen = selectors.EpollSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    chosen.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in chosen.select():
            if key.data is None:
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                chosen.register(peer, selectors.EVENT_READ, {"head": b"", "open": False, "left": b""})
                continue
            peer, state = key.fileobj, key.data
            try:
                data = peer.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                chosen.unregister(peer)
                peer.close()
                continue
            if not state["open"]:
                state["head"] += data
                if b"\r\n\r\n" not in state["head"]:
                    continue
                if b"pgrade" not in state["head"]:
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    state["head"] = b""
                    continue
                state["open"] = True
                peer.sendall(GRANT)
                continue
            whole = state["left"] + data
            count = len(whole) // len(FRAME)
            state["left"] = whole[count * len(FRAME) :]
            if count:
                peer.sendall(ECHO * count)


def load(port, connections, seconds):
    chosen = selectors.EpollSelector()
    for _ in range(connections):
        peer = socket.create_connection(("127.0.0.1", port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(ASK)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.recv(1)
        if b" 101 " not in head:
            sys.exit(f"no upgrade: {head!r}")
        chosen.register(peer, selectors.EVENT_READ, [0, 0.0])
    for key in chosen.get_map().values():
        key.data[1] = time.perf_counter()
        key.fileobj.sendall(FRAME)
    echoes, latencies, end = 0, [], time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        for key, _ in chosen.select(timeout=1):
            key.data[0] += len(key.fileobj.recv(1 << 16))
            if key.data[0] == len(ECHO):
                now = time.perf_counter()
                latencies.append(now - key.data[1])
                key.data[:] = [0, now]
                echoes += 1
                key.fileobj.sendall(FRAME)
    latencies.sort()
    quantile = lambda share: latencies[int(share * (len(latencies) - 1))] * 1e3
    print(echoes, quantile(0.5), quantile(0.99))


if __name__ == "__main__":
    numbers = list(map(int, sys.argv[2:]))
    {"serve": serve, "load": load}[sys.argv[1]](*numbers)
