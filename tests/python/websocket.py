"""The library `websockets` on either side.

usage: websocket.py serve [CERT KEY]         echoes; prints its port. `close 4321 reason` makes it close so. Behind
                                             TLS it would rather speak HTTP/2, which it does not
       websocket.py talk PORT                many messages, pings, and closes of both sides
       websocket.py big PORT MIB             one message of that size, there and back
       websocket.py crowd PORT COUNT PERIOD  that many connections, a message a PERIOD each, until they are closed;
                                             prints `ready` when all are open, then what became of them

What a client prints last is JSON.
"""

import asyncio
import json
import random
import ssl
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(connection):
    try:
        async for message in connection:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await connection.close(int(code), reason)
                return
            await connection.send(message)
    except ConnectionClosed:
        pass
    if isinstance(connection.close_code, int):
        print("closed", connection.close_code, connection.close_reason, file=sys.stderr, flush=True)


async def server(*pair):
    tls = None
    if pair:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*pair)
        tls.set_alpn_protocols(["h2", "http/1.1"])
    options = {"max_size": None, "compression": None, "ping_interval": None, "close_timeout": 5, "ssl": tls}
    async with serve(echo, "127.0.0.1", 0, **options) as it:
        print(it.sockets[0].getsockname()[1], flush=True)
        await it.serve_forever()


def url(port):
    return f"ws://127.0.0.1:{port}/chat?room=1"


async def talk(port):
    said = {}
    async with connect(url(port), compression=None, ping_interval=None) as connection:
        for number in range(2000):
            message = f"message {number}" if number % 2 else random.randbytes(number)
            await connection.send(message)
            assert await connection.recv() == message, number
        # Many under way at once.
        for number in range(500):
            await connection.send(f"{number}")
        assert [await connection.recv() for _ in range(500)] == [f"{number}" for number in range(500)]
        # A message in fragments, and a ping between them.
        async def fragments():
            yield "one, "
            await (await connection.ping(b"between"))
            yield "two"
        await connection.send(fragments())
        assert await connection.recv() == "one, two"
        said["latency"] = await (await connection.ping())
        await connection.close(4000, "enough")
        said["own"] = [connection.close_code, connection.close_reason]
    async with connect(url(port), compression=None, ping_interval=None) as connection:
        await connection.send("close 4321 no more of this")
        try:
            await connection.recv()
        except ConnectionClosed as closed:
            said["theirs"] = [closed.rcvd.code, closed.rcvd.reason]
    # With the extension that compresses.
    async with connect(url(port), ping_interval=None) as connection:
        await connection.send("x" * 100_000)
        assert await connection.recv() == "x" * 100_000
    print(json.dumps(said))


async def big(port, mib):
    message = random.randbytes(1 << 20) * mib
    async with connect(url(port), max_size=None, compression=None, ping_interval=None) as connection:
        await connection.send(message)
        same = await connection.recv() == message
    print(json.dumps({"same": same}))


async def member(port, period, opened, began):
    async with connect(url(port), compression=None, ping_interval=None, open_timeout=60) as connection:
        opened.set_result(None)
        told = {"echoes": 0, "lost": None}
        closed = asyncio.ensure_future(connection.wait_closed())
        await began.wait()
        await asyncio.sleep(random.random() * period)
        sent = None
        try:
            while True:
                message = f"{told['echoes']} {random.random()}"
                sent = time.monotonic()
                await connection.send(message)
                if await connection.recv() != message:
                    told["lost"] = "another message"
                    return told
                told["echoes"] += 1
                sent = None
                await asyncio.wait([closed], timeout=period)
                if closed.done():
                    break
        except ConnectionClosed:
            pass
        told["ended"] = time.time()
        # How long a message had been under way when the connection ended.
        told["pending"] = time.monotonic() - sent if sent is not None else 0
        told["code"] = connection.close_code
        return told


async def crowd(port, count, period):
    began = asyncio.Event()
    members = []
    for _ in range(count):
        opened = asyncio.get_running_loop().create_future()
        members.append(asyncio.create_task(member(port, period, opened, began)))
        await opened
    began.set()
    print("ready", flush=True)
    told = await asyncio.gather(*members)
    codes = {}
    for one in told:
        codes[str(one.get("code"))] = codes.get(str(one.get("code")), 0) + 1
    print(json.dumps({
        "codes": codes,
        "wrong": sum(one["lost"] is not None for one in told),
        "echoes": sum(one["echoes"] for one in told),
        "fewest": min(one["echoes"] for one in told),
        "pending": max(one.get("pending", 0) for one in told),
        "first_end": min(one.get("ended", 0) for one in told),
        "last_end": max(one.get("ended", 0) for one in told),
    }))


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        asyncio.run(server(*arguments))
    elif what == "talk":
        asyncio.run(talk(*arguments))
    elif what == "big":
        asyncio.run(big(arguments[0], int(arguments[1])))
    else:
        asyncio.run(crowd(arguments[0], int(arguments[1]), float(arguments[2])))
