"""A gRPC server with a method of each kind, for calls.py.

usage: calls_server.py [--port PORT] [--journal FILE]

Prints its port. Writes a line to the journal when a call is cancelled: the time, as seconds of the wall clock.
Ends on SIGTERM as servers do: what runs may end, the rest is sent away.
"""

import argparse
import signal
import sys
import threading
import time
from concurrent import futures

import grpc


class Calls(grpc.GenericRpcHandler):
    def __init__(self, journal):
        self.journal = journal
        self.methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Meta": grpc.unary_unary_rpc_method_handler(self.meta),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Left": grpc.unary_unary_rpc_method_handler(self.left),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
        }

    def service(self, details):
        return self.methods.get(details.method.rsplit("/", 1)[-1])

    def unary(self, message, _):
        return message

    def down(self, message, _):
        for number in range(int(message)):
            yield b"%d" % number

    def up(self, messages, _):
        return b"%d" % sum(len(message) for message in messages)

    def both(self, messages, _):
        for message in messages:
            yield message

    def meta(self, _, context):
        got = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-early", got.get("x-asked", "nothing")),))
        context.set_trailing_metadata((("x-late-bin", got.get("x-asked-bin", b"")),))
        return b"%d" % len([name for name in got if name.startswith("x-readygate")])

    def fail(self, _, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: 100% wrong, \N{EURO SIGN}")

    def left(self, _, context):
        """The time that the caller gives, in milliseconds."""
        return b"%d" % (context.time_remaining() * 1000)

    def hang(self, _, context):
        done = threading.Event()

        def cancelled():
            if self.journal:
                with open(self.journal, "a", encoding="utf8") as journal:
                    journal.write(f"{time.time()}\n")
            done.set()

        context.add_callback(cancelled)
        done.wait(30)
        return b""


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--journal")
    arguments = arguments.parse_args()
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=options)
    server.add_generic_rpc_handlers([Calls(arguments.journal)])
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=5))
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(main())
