"""A gRPC server with grpc.health.v1, whose answers are chosen by the name of the service that is asked for.

usage: health.py [--tls CERTIFICATE KEY] [--no-health] [--max-age MILLISECONDS]

Prints its port. `/test.Echo/Say` gives back what it gets. Metadata asks for more: `wanted-status` for that failure,
`wanted-length` and `wanted-metadata` (name=value) for one unless the call is so. Connections are closed at `--max-age`.
Ends on SIGTERM as servers do: what runs may end, the rest is sent away.
"""

import argparse
import logging
import os
import signal
import sys
import time
from concurrent import futures

os.environ.setdefault("GRPC_VERBOSITY", "info")

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

STATUS = health_pb2.HealthCheckResponse.ServingStatus


class Health(health.HealthServicer):
    """The package's own servicer, and answers that it would never give."""

    def Check(self, request, context):
        if request.service == "unimplemented":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no health here")
        if request.service == "unavailable":
            context.abort(grpc.StatusCode.UNAVAILABLE, "the leader is lost\r\nand 100% of votes too")
        if request.service == "denied":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        if request.service == "service-unknown":
            return health_pb2.HealthCheckResponse(status=STATUS.SERVICE_UNKNOWN)
        if request.service == "long":
            # A field that nobody knows, and the good status.
            return health_pb2.HealthCheckResponse.FromString(b"\x12\xa0\x8d\x06" + 100_000 * b"x" + b"\x08\x01")
        if request.service == "slow":
            time.sleep(4)
        return super().Check(request, context)


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/test.Echo/Say":
            return grpc.unary_unary_rpc_method_handler(self.say)
        return None

    def say(self, message, context):
        metadata = dict(context.invocation_metadata())
        code = int(metadata.get("wanted-status", "0"))
        if code:
            status = next(status for status in grpc.StatusCode if status.value[0] == code)
            context.abort(status, "as was wanted")
        if "wanted-length" in metadata and int(metadata["wanted-length"]) != len(message):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{len(message)} bytes")
        if "wanted-metadata" in metadata:
            name, value = metadata["wanted-metadata"].split("=")
            if metadata.get(name) != value:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{name} is {metadata.get(name)}")
        return message


def main():
    logging.basicConfig()
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tls", nargs=2)
    arguments.add_argument("--no-health", action="store_true")
    arguments.add_argument("--max-age", type=int, default=2**31 - 1)
    arguments = arguments.parse_args()

    options = [("grpc.max_connection_age_ms", arguments.max_age)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    server.add_generic_rpc_handlers([Echo()])
    if not arguments.no_health:
        servicer = Health()
        servicer.set("serving", STATUS.SERVING)
        servicer.set("notserving", STATUS.NOT_SERVING)
        servicer.set("unknown", STATUS.UNKNOWN)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if arguments.tls:
        certificate, key = (open(path, "rb").read() for path in arguments.tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=1))
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(main())
