"""An HTTP proxy before an S3 server that makes the faults of networks and stores, and counts what is asked of it."""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
NO_SUCH_KEY = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>"
PER_CONNECTION = ("Connection", "Transfer-Encoding", "Server", "Date")


@dataclass
class Fault:
    """What happens to GET requests whose path (or query) holds `where`, the first `times` times for each path.

    `kind`: slow_down (503), reset (after half of the body), refuse (before any answer), stall (after half of the body),
    short (half of the body, and the connection closed), truncate (half of the body under headers that say so),
    flip (one bit), missing (404), slow (`pause_s` before the body).
    """

    kind: str
    where: str = ".dcm"
    times: float = float("inf")
    pause_s: float = 0.0


class FaultProxy(ThreadingHTTPServer):
    """Forwards to `upstream`; `gets` counts GET requests by path, `faults` apply from the first that matches."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, *faults: Fault) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.faults = list(faults)
        self.gets: Counter[str] = Counter()
        self.ended = threading.Event()
        self._seen: Counter[tuple[int, str]] = Counter()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            self.gets[path.partition("?")[0]] += 1
            for n, fault in enumerate(self.faults):
                self._seen[n, path] += fault.where in path
                if fault.where in path and self._seen[n, path] <= fault.times:
                    return fault
        return None

    def object_gets(self) -> Counter[str]:
        """GET requests by `<folder>/<name>` of objects."""
        paths = {path: n for path, n in self.gets.items() if path.endswith(".dcm")}
        return Counter({"/".join(path.split("/")[-2:]): n for path, n in paths.items()})

    def handle_error(self, request, client_address) -> None:
        """Clients that were killed close their connections."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""

    def do_HEAD(self) -> None:
        self._answer(*self._forward())

    def do_GET(self) -> None:
        fault = self.server.fault(self.path)
        kind = fault.kind if fault else ""
        if kind == "refuse":
            return self._reset()
        if kind == "slow_down":
            return self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        if kind == "missing":
            return self._answer(404, [("Content-Type", "application/xml")], NO_SUCH_KEY)
        status, headers, body = self._forward()
        half = body[: len(body) // 2]
        if kind in ("reset", "stall", "short"):
            self._answer(status, headers, half, length=len(body))
            if kind == "stall":
                self.server.ended.wait()
            return self._reset() if kind == "reset" else None
        if kind == "slow":
            time.sleep(fault.pause_s)
        if kind == "truncate":
            headers = [(name, value) for name, value in headers if name != "Content-Range"]
            headers.append(("Content-Range", f"bytes 0-{len(half) - 1}/{len(half)}"))
            body = half
        if kind == "flip":
            body = half + bytes([body[len(half)] ^ 1]) + body[len(half) + 1 :]
        return self._answer(status, headers, body)

    def _forward(self) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name not in ("Connection", "Accept-Encoding")}
        connection.request(self.command, self.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, [header for header in answer.getheaders() if header[0] not in PER_CONNECTION], body

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = length is not None

    def _reset(self) -> None:
        """Close with a TCP reset: linger for no time."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()
        self.close_connection = True


@contextmanager
def fault_proxy(upstream: str, *faults: Fault) -> Iterator[FaultProxy]:
    """A proxy before `upstream` until the block ends."""
    proxy = FaultProxy(upstream, *faults)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
