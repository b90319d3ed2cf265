"""A small Kubernetes API over HTTP: objects at paths, merge patches, conflicts, label selectors, refusals.

No admission, no defaults, no controllers; what needs those runs against a real API server (tests/e2e).
"""

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    out = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


class FakeApi:
    """Objects by their path, as `/apis/apps/v1/namespaces/llm/deployments/llama`."""

    def __init__(self) -> None:
        self.objects: dict[str, Object | str] = {}
        """Text is a page of a pod behind the proxy."""
        self.refused: set[tuple[str, str]] = set()
        """Method and part of the path that are answered with 403."""
        self.collections = {
            "trailpolicies", "pods", "deployments", "statefulsets", "namespaces",
            "mutatingwebhookconfigurations",
        }  # fmt: skip
        """Resources that the server has."""
        self.calls: list[tuple[str, str]] = []
        self.down: int | None = None
        """Every request is answered with this status; 0: the server hangs up."""
        self._version = 0
        self._lock = threading.Lock()

    def put(self, where: str, obj: Object) -> None:
        """Has an object at a path."""
        self._version += 1
        stored = copy.deepcopy(obj)
        stored.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self.objects[where] = stored

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, Object]:
        """Status and object of a request."""
        parts = urlsplit(url)
        with self._lock:
            self.calls.append((method, parts.path))
            if self.down is not None:
                return _failure(self.down, "the server is not what it should be")
            if any(method == m and part in parts.path for m, part in self.refused):
                return _failure(403, f"{method} {parts.path} is forbidden")
            if method == "GET":
                selector = parse_qs(parts.query).get("labelSelector", [""])[0]
                return self._get(parts.path, selector)
            return self._write(method, parts.path, json.loads(body) if body else {})

    def _get(self, where: str, selector: str) -> tuple[int, Object]:
        if where in self.objects:
            return 200, self.objects[where]
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        head, plural = where.rsplit("/", 1)
        if plural not in self.collections:
            return _failure(404, f"{where} not found")
        items = [
            obj
            for place, obj in sorted(self.objects.items())
            if _collection(place) in (where, f"{head}/namespaces/{_namespace(place)}/{plural}")
            and wanted.items() <= (obj["metadata"].get("labels") or {}).items()
        ]
        return 200, {"kind": "List", "metadata": {}, "items": items}

    def _write(self, method: str, where: str, body: Object) -> tuple[int, Object]:
        if method == "POST":
            name = body["metadata"]["name"]
            self.put(f"{where}/{name}", body)
            return 201, self.objects[f"{where}/{name}"]
        place = where.removesuffix("/status")
        present = self.objects.get(place)
        if present is None:
            return _failure(404, f"{where} not found")
        if method == "DELETE":
            return 200, self.objects.pop(place)
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version not in (None, present["metadata"]["resourceVersion"]):
            return _failure(409, "the object has been modified")
        self.put(place, body if method == "PUT" else merged(present, body))
        return 200, self.objects[place]

    @contextmanager
    def serving(self, directory: Path, namespace: str = "llm") -> Iterator[Path]:
        """Serves on loopback while the block runs; gives a kubeconfig."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield write_kubeconfig(directory, f"http://127.0.0.1:{server.server_port}", namespace)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def write_kubeconfig(directory: Path, url: str, namespace: str) -> Path:
    """A kubeconfig with one context."""
    file = directory / "kubeconfig"
    file.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me", "namespace": namespace}}],
    }))  # fmt: skip
    return file


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: the second would wait 40 ms for the acknowledgement of the first.
        wbufsize = -1

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = api.answer(self.command, self.path, body)
            if status == 0:
                self.close_connection = True
                return
            page = isinstance(answer, str)
            encoded = (answer if page else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if page else "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_: Any) -> None:
            """Tests are told enough by their assertions."""

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the library's names

    return Handler


def _failure(status: int, message: str) -> tuple[int, Object]:
    return status, {"kind": "Status", "status": "Failure", "message": message, "code": status}


def _collection(place: str) -> str:
    return place.rsplit("/", 1)[0]


def _namespace(place: str) -> str:
    parts = place.split("/")
    return parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
