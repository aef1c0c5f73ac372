"""A WebSocket client that does everything that RFC 6455 allows and much that it does not, byte by byte.

usage: websocket_cases.py PORT

Plays each case on a connection of its own against an echo server, and prints as one line of JSON what came back: the
frames in their order, and how the connection ended. The cases follow the chapters of well-known fuzzing clients.
"""

import asyncio
import base64
import hashlib
import json
import struct
import sys

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
AT_ONCE = 16


def frame(opcode, payload=b"", fin=1, rsv=0, mask=MASK, size=None):
    """`size`: how many bytes the length takes, if not as few as possible."""
    length = len(payload)
    size = size or (1 if length < 126 else 3 if length < 1 << 16 else 9)
    bit = 0x80 if mask else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    head += {1: lambda: bytes([bit | length]), 3: lambda: bytes([bit | 126]) + struct.pack("!H", length),
             9: lambda: bytes([bit | 127]) + struct.pack("!Q", length)}[size]()
    if not mask:
        return head + payload
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


def close(code=1000, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


GOODBYE = close()


def chop(data, size=1):
    return [data[at : at + size] for at in range(0, len(data), size)]


def cases():
    """Name and steps: bytes to send, or the number of frames to wait for."""
    for kind, opcode, letter in (("text", TEXT, b"*"), ("binary", BINARY, b"\xfe")):
        for size in (0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20):
            yield f"{kind} of {size}", [frame(opcode, letter * size), 1, GOODBYE]
        for size in (1, 100, 65535):
            for piece in (1, 997):
                if size / piece < 2000:
                    yield f"{kind} of {size} by {piece}", [*chop(frame(opcode, letter * size), piece), 1, GOODBYE]
        message = letter * (8 << 20)
        for piece in (64, 4096, 65536, 1 << 20):
            parts = chop(message[: max(piece, 8 << 20 if piece > 64 else 64 << 10)], piece)
            frames = [frame(opcode if at == 0 else CONT, part, fin=at == len(parts) - 1) for at, part in enumerate(parts)]
            yield f"{kind} in {len(parts)} fragments of {piece}", [b"".join(frames), 1, GOODBYE]

    for size in (0, 1, 125):
        yield f"ping of {size}", [frame(PING, b"\x00\xff" * (size // 2) + b"p" * (size % 2)), 1, GOODBYE]
    yield "ping of 126", [frame(PING, b"p" * 126)]
    yield "ping by the byte", [*chop(frame(PING, b"p" * 125)), 1, GOODBYE]
    yield "ten pings", [b"".join(frame(PING, b"%d" % number) for number in range(10)), 10, GOODBYE]
    yield "ten pings by the byte", [*chop(b"".join(frame(PING, b"%d" % number) for number in range(10))), 10, GOODBYE]
    for size in (0, 125):
        yield f"pong of {size} unasked", [frame(PONG, b"p" * size), frame(PING, b"and"), 1, GOODBYE]
    yield "pong of 126", [frame(PONG, b"p" * 126)]

    for rsv in range(1, 8):
        for name, opcode in (("text", TEXT), ("binary", BINARY), ("ping", PING), ("close", CLOSE)):
            yield f"reserved bits {rsv} on {name}", [frame(opcode, b"\x03\xe8", rsv=rsv)]
        yield f"reserved bits {rsv} after a message", [frame(TEXT, b"one"), 1, frame(TEXT, b"two", rsv=rsv)]
        yield f"reserved bits {rsv} by the byte", chop(frame(TEXT, b"one", rsv=rsv))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", [frame(opcode)]
        yield f"opcode {opcode} with bytes", [frame(opcode, b"what")]
        yield f"opcode {opcode} after a message", [frame(TEXT, b"one"), 1, frame(opcode, b"what"), frame(PING)]

    start, middle, end = frame(TEXT, b"one", fin=0), frame(CONT, b"two", fin=0), frame(CONT, b"three")
    yield "two fragments", [start + end, 1, GOODBYE]
    yield "three fragments by the byte", [*chop(start + middle + end), 1, GOODBYE]
    yield "fragments of nothing", [frame(TEXT, fin=0) + frame(CONT, fin=0) + frame(CONT), 1, GOODBYE]
    yield "ping between fragments", [start, frame(PING, b"between"), 1, end, 2, GOODBYE]
    yield "ping between fragments at once", [start + frame(PING, b"between") + end, 2, GOODBYE]
    yield "pong between fragments", [start + frame(PONG, b"between") + end, 1, GOODBYE]
    yield "five pings between fragments", [(start + middle + frame(PING, b"p") * 5 + end), 6, GOODBYE]
    yield "close between fragments", [start, GOODBYE]
    yield "message between fragments", [start, frame(TEXT, b"whole"), end]
    yield "binary between fragments", [start, frame(BINARY, b"whole", fin=0), end]
    for fin in (0, 1):
        yield f"continuation of nothing, fin {fin}", [frame(CONT, b"what", fin=fin)]
        yield f"continuation after a message, fin {fin}", [frame(TEXT, b"one"), 1, frame(CONT, b"what", fin=fin)]
        yield f"continuation after fragments, fin {fin}", [start + end, 1, frame(CONT, b"what", fin=fin)]
    yield "a ping in fragments", [frame(PING, b"one", fin=0), frame(CONT, b"two")]
    yield "a pong in fragments", [frame(PONG, b"one", fin=0), frame(CONT, b"two")]
    yield "a close in fragments", [frame(CLOSE, b"\x03", fin=0), frame(CONT, b"\xe8")]

    good = "κόσμε ☃ 𝄞 \u0000 \ud7ff \ue000 \ufffd \U0010ffff".encode()
    yield "UTF-8", [frame(TEXT, good), 1, GOODBYE]
    yield "UTF-8 by the byte", [*chop(frame(TEXT, good)), 1, GOODBYE]
    parts = chop(good)
    frames = [frame(TEXT if at == 0 else CONT, part, fin=at == len(parts) - 1) for at, part in enumerate(parts)]
    yield "UTF-8 in fragments of a byte", [b"".join(frames), 1, GOODBYE]
    for name, bad in (
        ("a byte that is none", b"\xff"), ("another", b"\xfe"), ("a continuation alone", b"\x80"), ("two", b"\xbf\x80"),
        ("two bytes cut", b"\xce"), ("three bytes cut", b"\xe2\x98"), ("four bytes cut", b"\xf0\x9d\x84"),
        ("two bytes too many", b"\xc0\xaf"), ("three bytes too many", b"\xe0\x80\xaf"),
        ("four bytes too many", b"\xf0\x80\x80\xaf"), ("NUL in two bytes", b"\xc0\x80"),
        ("the first surrogate", b"\xed\xa0\x80"), ("a pair of surrogates", b"\xed\xa0\xb4\xed\xb4\x9e"),
        ("beyond the last", b"\xf4\x90\x80\x80"), ("five bytes", b"\xf8\x88\x80\x80\x80"),
        ("a start without its rest", b"\xe2x"), ("Latin-1", "äöü".encode("latin1")),
    ):
        yield f"not UTF-8: {name}", [frame(TEXT, b"abc" + bad)]
        yield f"not UTF-8 in the middle: {name}", [frame(TEXT, b"abc" + bad + b"def")]
        yield f"not UTF-8 in the second fragment: {name}", [frame(TEXT, b"abc", fin=0), frame(CONT, bad)]
        yield f"binary of what is not UTF-8: {name}", [frame(BINARY, bad), 1, GOODBYE]

    yield "close of nothing", [frame(CLOSE)]
    yield "close of one byte", [frame(CLOSE, b"\x03")]
    yield "close twice", [GOODBYE + GOODBYE]
    yield "close and a message", [GOODBYE + frame(TEXT, b"late")]
    yield "close and a ping", [GOODBYE + frame(PING, b"late")]
    yield "close by the byte", chop(close(4000, b"by the byte"))
    yield "a message and close", [frame(TEXT, b"one"), 1, GOODBYE]
    yield "a reason of 123 bytes", [close(1000, b"r" * 123)]
    yield "a reason of 124 bytes", [close(1000, b"r" * 124)]
    yield "a reason of UTF-8", [close(1000, "☃".encode())]
    yield "a reason that is not UTF-8", [close(1000, b"\xce\xba\xff")]
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        yield f"close with {code}", [close(code, b"why")]
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield f"close with {code}, which is none", [close(code)]

    for name, opcode in (("text", TEXT), ("binary", BINARY), ("ping", PING), ("close", CLOSE)):
        yield f"{name} without a mask", [frame(opcode, b"\x03\xe8", mask=None)]
    yield "a mask of zeros", [frame(TEXT, b"plain", mask=b"\0\0\0\0"), 1, GOODBYE]
    for size in (3, 9):
        yield f"a length in {size} bytes without need", [frame(TEXT, b"short", size=size), 1, GOODBYE]
        yield f"a length of a ping in {size} bytes", [frame(PING, b"short", size=size), 1, GOODBYE]
    yield "a length beyond all", [b"\x82\xff" + b"\xff" * 8 + MASK, None]
    for name, part in (("a frame", frame(TEXT, b"half a message")[:9]), ("a head", b"\x81"), ("a length", b"\x81\xfe\x01")):
        yield f"the end in the middle of {name}", [part, None]
    yield "the end without a close", [frame(TEXT, b"one"), 1, None]
    yield "the end between fragments", [start, None]


def handshakes():
    """Name and head."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = ["GET /chat HTTP/1.1", "Host: app.test", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    yield "handshake", lines
    yield "with an origin", [*lines, "Origin: http://app.test"]
    yield "with a subprotocol", [*lines, "Sec-WebSocket-Protocol: chat, superchat"]
    yield "with extensions", [*lines, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-none"]
    yield "with names in capitals", [lines[0], *[line.upper() for line in lines[1:4]], *lines[4:]]
    yield "with keep-alive", [line.replace("Connection: ", "Connection: keep-alive, ") for line in lines]
    for number, name in ((2, "Upgrade"), (4, "key"), (5, "version")):
        yield f"without {name}", lines[:number] + lines[number + 1 :]
    yield "with another version", [*lines[:5], "Sec-WebSocket-Version: 12"]
    yield "with a bad key", [*lines[:4], "Sec-WebSocket-Key: short", lines[5]]
    yield "with two keys", [*lines, lines[4]]
    yield "to another protocol", [line.replace("websocket", "other/1") for line in lines]


async def head(reader):
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    except asyncio.IncompleteReadError as cut:
        return [f"cut after {cut.partial[:40]!r}"]


async def handshake(port, lines):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", ""]).encode())
    told = await asyncio.wait_for(head(reader), 20)
    fields = [line.split(": ", 1) for line in told[1:] if ": " in line]
    kept = sorted(f"{name.lower()}: {value}" for name, value in fields if name.lower().startswith("sec-websocket"))
    kept += sorted(f"upgrade: {value}" for name, value in fields if name.lower() == "upgrade")
    writer.close()
    return [" ".join(told[0].split(" ")[:2]), *kept]


async def received(reader):
    """One frame in words."""
    first, second = await reader.readexactly(2)
    length = second & 127
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await reader.readexactly(8))
    payload = await reader.readexactly(length)
    said = payload.hex() if length < 126 else hashlib.sha256(payload).hexdigest()
    return f"{first:02x} {'masked ' if second & 128 else ''}{length} {said}"


async def play(port, steps):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*dict(handshakes())["handshake"], "", ""]).encode())
    told = await head(reader)
    assert " 101 " in told[0], told
    seen = []
    try:
        for step in steps:
            if step is None:
                writer.write_eof()
            elif isinstance(step, int):
                while len(seen) < step:
                    seen.append(await received(reader))
            else:
                writer.write(step)
                await writer.drain()
                # So that pieces are pieces.
                await asyncio.sleep(0)
        while True:
            seen.append(await received(reader))
    except asyncio.IncompleteReadError as cut:
        seen.append("end" if not cut.partial else f"end within {cut.partial[:20].hex()}")
    except ConnectionError:
        seen.append("end")
    finally:
        writer.close()
    return seen


async def main(port):
    seats, told = asyncio.Semaphore(AT_ONCE), {}

    async def tell(name, work):
        async with seats:
            try:
                told[name] = await asyncio.wait_for(work, 30)
            except TimeoutError:
                told[name] = ["nothing more came"]

    names = [(name, play(port, steps)) for name, steps in cases()]
    names += [(f"handshake: {name}", handshake(port, lines)) for name, lines in handshakes()]
    assert len(dict(names)) == len(names), "names are different"
    await asyncio.gather(*[tell(name, work) for name, work in names])
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
