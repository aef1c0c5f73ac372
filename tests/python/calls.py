"""A gRPC client that makes a call of each kind, or many calls, and prints what came as one line of JSON.

usage: calls.py ADDRESS cases
       calls.py ADDRESS many COUNT CONCURRENCY
       calls.py ADDRESS until STOPPED COUNTED   calls until the first file is there; the second one grows by a byte a call
       calls.py ADDRESS stream STOPPED COUNTED  the same for messages on one stream, and a call beside each
       calls.py ADDRESS cancel                  prints when it cancelled
       calls.py ADDRESS one METHOD [DEADLINE]   the code and the words of one call
"""

import collections
import json
import os
import queue
import sys
import threading
import time

import grpc

OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.enable_retries", 0),
    # Whoever restarts is called again soon.
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


def same(message):
    return message


class Stub:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=OPTIONS)

    def unary(self, method):
        return self.channel.unary_unary(f"/test.Calls/{method}", same, same)

    def down(self, method):
        return self.channel.unary_stream(f"/test.Calls/{method}", same, same)

    def up(self, method):
        return self.channel.stream_unary(f"/test.Calls/{method}", same, same)

    def both(self, method):
        return self.channel.stream_stream(f"/test.Calls/{method}", same, same)


def cases(stub):
    found = {}
    found["unary"] = stub.unary("Unary")(b"hello").decode()
    large = os.urandom(4 << 20)
    found["4 MiB"] = stub.unary("Unary")(large) == large
    found["empty"] = stub.unary("Unary")(b"").decode()
    found["server stream"] = b",".join(stub.down("Down")(b"100")).decode()
    found["client stream"] = stub.up("Up")(iter([b"x" * 1000] * 100)).decode()
    turns = threading.Semaphore(0)

    def questions():
        for number in range(20):
            yield b"%d" % number
            turns.acquire()

    answers = []
    for answer in stub.both("Both")(questions()):
        answers.append(answer.decode())
        turns.release()
    found["both ways, in turns"] = answers
    metadata = (("x-asked", "early"), ("x-asked-bin", b"\0\1\xff"))
    answer, call = stub.unary("Meta").with_call(b"", metadata=metadata)
    found["metadata"] = [
        answer.decode(),
        dict(call.initial_metadata()).get("x-early"),
        dict(call.trailing_metadata()).get("x-late-bin").hex(),
    ]
    for method, deadline in (("Fail", None), ("Nothing", None), ("Hang", 0.3)):
        # The words of a deadline are the client's own, and depend on who was faster.
        found[method] = outcome(stub, method, deadline)[: 1 if deadline else 2]
    left = int(stub.unary("Left")(b"", timeout=20))
    # gRPC rounds it up on its way.
    found["deadline"] = 15_000 < left <= 21_000
    return found


def outcome(stub, method, deadline):
    try:
        stub.unary(method)(b"", timeout=deadline)
        return ["OK", ""]
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


def work(stub, wanted, done, failures, latencies):
    """Makes calls while `wanted` says so."""
    while wanted():
        done()
        message = os.urandom(16)
        began = time.monotonic()
        try:
            if stub.unary("Unary")(message, timeout=30) != message:
                failures.append("another message")
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
            time.sleep(0.005)
        latencies.append(time.monotonic() - began)


def stream(stub, stopped, done):
    """Messages one after the other on one stream, and a call beside each on whatever connection there is."""
    states, questions, failures = [], queue.Queue(), []
    stub.channel.subscribe(lambda state: states.append(state.name))
    answers = stub.both("Both")(iter(questions.get, None))
    exchanged, wrong = 0, 0
    while not os.path.exists(stopped):
        message = b"%d" % exchanged
        questions.put(message)
        wrong += next(answers) != message
        exchanged += 1
        code, words = outcome(stub, "Unary", 10)
        if code != "OK":
            failures.append(f"{code}: {words}")
        done()
        time.sleep(0.01)
    questions.put(None)
    left = len(list(answers))
    return {
        "exchanged": exchanged, "wrong": wrong, "left": left, "code": answers.code().name,
        "failures": failures[:5], "failed": len(failures), "states": states,
    }


def crowd(stub, wanted, concurrency, done=lambda: None):
    failures, latencies = [], []
    threads = [
        threading.Thread(target=work, args=(stub, wanted, done, failures, latencies)) for _ in range(concurrency)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = collections.Counter(failure.split(":")[0] for failure in failures)
    return {
        "calls": len(latencies), "failures": sorted(set(failures))[:5], "failed": len(failures), "codes": codes,
        "slowest": max(latencies),
    }


def main():
    stub, command, rest = Stub(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if command == "cases":
        print(json.dumps(cases(stub)))
    elif command == "many":
        left, lock = [int(rest[0])], threading.Lock()

        def wanted():
            with lock:
                left[0] -= 1
                return left[0] >= 0

        print(json.dumps(crowd(stub, wanted, int(rest[1]))))
    elif command in ("until", "stream"):
        stopped, counted = rest
        with open(counted, "ab", buffering=0) as counter:

            def done():
                counter.write(b".")

            if command == "stream":
                print(json.dumps(stream(stub, stopped, done)))
            else:
                print(json.dumps(crowd(stub, lambda: not os.path.exists(stopped), 8, done)))
    elif command == "one":
        print(json.dumps(outcome(stub, rest[0], float(rest[1]) if rest[1:] else None)))
    elif command == "cancel":
        call = stub.unary("Hang").future(b"")
        time.sleep(0.5)
        now = time.time()
        call.cancel()
        print(json.dumps(now))
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
