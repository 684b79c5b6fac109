"""The cluster's API over HTTPS."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from minicluster.objects import KINDS, NAMES, ApiError, merge, now

if TYPE_CHECKING:
    from minicluster.cluster import MiniCluster


def serve(cluster: "MiniCluster") -> tuple[ThreadingHTTPServer, int]:
    """Start the API on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Api,), {"cluster": cluster}))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cluster.state / "server.crt", cluster.state / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_address[1]


class Api(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    cluster: "MiniCluster"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the call in `calls.log`."""
        with (self.cluster.state / "calls.log").open("a") as file:
            file.write(f"{now()} {self.headers.get('User-Agent', '')[:30]} {format % arguments}\n")

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if (self.headers.get("Authorization") or "").lower() != f"bearer {self.cluster.token}":
                raise ApiError(401, "Unauthorized", "Unauthorized")
            with self.cluster.objects.lock:
                code, result = self._route(json.loads(body) if body else {})
                data = result if isinstance(result, bytes) else json.dumps(result).encode()
        except ApiError as error:
            code, data, result = error.code, json.dumps(error.body).encode(), {}
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(result, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _route(self, body: Any) -> tuple[int, Any]:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if found := _discovery(url.path, parts):
            return 200, found
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
            self.cluster.objects.get("namespaces", "", namespace)
        if rest[0] not in KINDS:
            raise ApiError(404, "NotFound", f"no such resource {rest[0]}")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        return self._answer(rest[0], namespace, rest[1:], body=body, query=query)

    def _answer(
        self, kind: str, namespace: str, name: list[str], *, body: Any, query: dict[str, str]
    ) -> tuple[int, Any]:
        objects = self.cluster.objects
        if not name and self.command == "POST":
            return 201, objects.create(kind, namespace, body)
        if not name:
            selectors = {"labels": query.get("labelSelector", ""), "fields": query.get("fieldSelector", "")}
            listed = {"kind": f"{NAMES[kind]}List", "apiVersion": KINDS[kind], "metadata": {"resourceVersion": "1"}}
            return 200, listed | {"items": objects.all(kind, namespace, **selectors)}
        found = objects.get(kind, namespace, name[0])
        if name[1:] == ["log"]:
            return 200, self.cluster.podman.log(f"{namespace}.{name[0]}")
        if self.command == "PATCH":
            merge(found, body)
        elif self.command == "PUT":
            found.clear()
            found.update(body)
        elif self.command == "DELETE":
            self.cluster.kill(objects.delete(kind, namespace, name[0]))
        return 200, found


def _discovery(path: str, parts: list[str]) -> dict[str, Any] | None:
    """What kubectl and clients ask first: the version, groups and resources."""
    if parts[0] == "version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = sorted({version for version in KINDS.values() if version != "v1"})
        named = [{"groupVersion": version, "version": "v1"} for version in versions]
        groups = [
            {"name": one["groupVersion"].partition("/")[0], "versions": [one], "preferredVersion": one} for one in named
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
    if len(parts) > (2 if parts[0] == "api" else 3):
        return None
    verbs = ["get", "list", "create", "delete", "patch"]
    resources = [
        {"name": kind, "singularName": "", "kind": NAMES[kind], "verbs": verbs}
        | {"namespaced": kind not in ("namespaces", "nodes")}
        for kind, group in KINDS.items()
        if group == version
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
