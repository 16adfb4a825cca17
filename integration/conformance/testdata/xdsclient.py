"""What cmd/xdsclient does, by gRPC's C core: calls the echo service of a target
such as xds:///echo over and over, and prints for each call a line: the name of
the instance that answered, or "error" and the status."""

import sys
import time

import grpc

PAUSE, PATIENCE = 0.005, 60  # seconds

channel = grpc.insecure_channel(sys.argv[1])
echo = channel.unary_unary(
    "/weir.echo.v1.EchoService/Echo", request_serializer=bytes, response_deserializer=bytes
)
while True:
    try:
        # The instance is field 1: a tag, a length of one byte, the text.
        answer = echo(b"", timeout=PATIENCE)
        print(answer[2 : 2 + answer[1]].decode(), flush=True)
    except grpc.RpcError as error:
        print(f"error {error.code().name}: {error.details()}", flush=True)
    time.sleep(PAUSE)
