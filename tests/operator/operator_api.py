"""kmock's API server with what the operator relies on: versions and conflicts, the status subresource,
evictions, Leases replaced, refused permissions, and namespaces, which kmock 0.8 cannot parse."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp.web
from fake_api import write_kubeconfig
from kmock import KubernetesEmulator, resource
from kmock._internal.k8s import KubernetesError, KubernetesObjectNotFoundError

Object = dict[str, Any]

VERBS = {"get", "list", "watch", "create", "update", "patch", "delete"}
KINDS = {
    "trail.dev/v1alpha1/trailpolicies": "TrailPolicy",
    "apps/v1/deployments": "Deployment",
    "apps/v1/statefulsets": "StatefulSet",
    "v1/pods": "Pod",
    "v1/events": "Event",
    "coordination.k8s.io/v1/leases": "Lease",
}
NAMESPACES = "/api/v1/namespaces"


class FakeApi(KubernetesEmulator):
    """`forbidden` holds (method, plural, subresource or '') that are answered with 403."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.forbidden: set[tuple[str, str, str]] = set()
        self.namespaces: dict[str, Object] = {}
        self.evicted: list[tuple[str, Object]] = []
        self.interfere: list[Any] = []
        """Called one by one just before a workload's patch is compared with the stored version."""
        self._watchers: set[asyncio.Queue[Object]] = set()
        self._version = 100
        for name, kind in KINDS.items():
            info = self.resources[name]
            info.kind, info.namespaced, info.verbs = kind, True, VERBS
        info = self.resources["v1/namespaces"]
        info.kind, info.namespaced, info.verbs = "Namespace", False, VERBS
        self["get /version"] << {"major": "1", "minor": "28+", "gitVersion": "v1.28.3"}

    async def __call__(self, raw_request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        if raw_request.path == NAMESPACES:
            return await self._serve_namespaces(raw_request)
        return await super().__call__(raw_request)

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        if request.resource is None:
            return await super()._handle(request)
        plural, part = request.resource.plural, request.subresource or ""
        if (request.method.value, plural, part) in self.forbidden:
            raise KubernetesError(403, "Forbidden", f"the operator may not {request.method.value} {plural}")
        if part == "eviction":
            return await self._evict(request)
        if request.method.value == "PUT":
            return await self._replace(request)
        if request.action is not None and request.action.value == "UPDATE":
            self._before_patch(request, plural, part)
        elif request.action is not None and request.action.value == "CREATE":
            request.data["metadata"].setdefault("namespace", request.namespace)
            request.data["metadata"]["resourceVersion"] = self._next()
            request.data["metadata"].setdefault("uid", f"uid-{self._version}")
        return await super()._handle(request)

    def _before_patch(self, request: Any, plural: str, part: str) -> None:
        if self.interfere and plural in ("deployments", "statefulsets"):
            self.interfere.pop(0)()
        key = (request.resource, request.namespace, request.name)
        if key not in self.objects._objects or self.objects[key].deleted:
            raise KubernetesObjectNotFoundError()
        stored = self.objects[key].raw
        metadata = request.data.setdefault("metadata", {})
        wanted = metadata.get("resourceVersion")
        if wanted is not None and wanted != stored["metadata"]["resourceVersion"]:
            raise KubernetesError(409, "Conflict", "the object has been modified")
        if plural == "trailpolicies":
            # The subresource takes the status alone, the object everything else.
            for field in [
                f for f in request.data if (f == "status") != (part == "status") and f != "metadata"
            ]:
                del request.data[field]
            if "spec" in request.data:
                metadata["generation"] = stored["metadata"].get("generation", 0) + 1
        metadata["resourceVersion"] = self._next()

    async def _evict(self, request: Any) -> aiohttp.web.StreamResponse:
        if request.data["apiVersion"] != "policy/v1":
            raise KubernetesError(400, "BadRequest", "no such version")
        self.evicted.append((request.name, request.data))
        await self.remove("v1/pods", request.namespace, request.name)
        return aiohttp.web.json_response({"kind": "Status", "status": "Success"}, status=201)

    async def _replace(self, request: Any) -> aiohttp.web.StreamResponse:
        key = (request.resource, request.namespace, request.name)
        if (
            self.objects[key].raw["metadata"]["resourceVersion"]
            != request.data["metadata"]["resourceVersion"]
        ):
            raise KubernetesError(409, "Conflict", "the object has been modified")
        request.data["metadata"]["resourceVersion"] = self._next()
        self.objects[key] = request.data
        return aiohttp.web.json_response(request.data)

    async def _serve_namespaces(self, raw_request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        if "watch" not in raw_request.query:
            items = list(self.namespaces.values())
            return aiohttp.web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        response = aiohttp.web.StreamResponse()
        await response.prepare(raw_request)
        queue: asyncio.Queue[Object] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            self._watchers.discard(queue)

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    # ---- what tests do as a user would ----------------------------------------------------------

    async def add(self, kind: str, obj: Object) -> None:
        """Creates an object, in its namespace."""
        metadata = obj["metadata"]
        await self._ask("POST", self._where(kind, metadata["namespace"]), obj)

    async def change(self, kind: str, namespace: str, name: str, patch: Object, part: str = "") -> None:
        """Patches an object."""
        await self._ask("PATCH", f"{self._where(kind, namespace)}/{name}{part and '/'}{part}", patch)

    async def remove(self, kind: str, namespace: str, name: str) -> None:
        """Deletes an object, whatever the permissions are."""
        await self._ask("DELETE", f"{self._where(kind, namespace)}/{name}")

    def label(self, namespace: str, **labels: str) -> None:
        """Makes a namespace, or gives it other labels."""
        obj = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "uid": f"uid-{namespace}",
                "resourceVersion": self._next(),
                "labels": labels,
            },
        }
        kind = "MODIFIED" if namespace in self.namespaces else "ADDED"
        self.namespaces[namespace] = obj
        for queue in self._watchers:
            queue.put_nowait({"type": kind, "object": obj})

    def stored(self, kind: str, namespace: str, name: str) -> Object:
        """An object as it is now, as plain JSON."""
        return json.loads(json.dumps(self.objects[kind, namespace, name].raw, default=dict))

    def exists(self, kind: str, namespace: str, name: str) -> bool:
        """Whether it is there."""
        key = (resource(kind), namespace, name)
        return key in self.objects._objects and not self.objects[key].deleted

    def break_watches(self) -> None:
        """Has the watches of namespaces end as a server in trouble ends them."""
        error = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "etcd"}
        for queue in self._watchers:
            queue.put_nowait({"type": "ERROR", "object": error})

    def writes(self, plural: str) -> list[Any]:
        """PATCH requests for objects of one resource."""
        return [
            r
            for r in self._requests
            if r.method.value == "PATCH" and r.resource and r.resource.plural == plural
        ]

    def events(self) -> list[tuple[str, str, str]]:
        """(kind and name of the object, reason, message) of all Events."""
        posted = [
            r.data
            for r in self._requests
            if r.method.value == "POST" and r.resource and r.resource.plural == "events"
        ]
        return [
            (f"{e['involvedObject']['kind']} {e['involvedObject']['name']}", e["reason"], e["message"])
            for e in posted
        ]

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig for this server."""
        return write_kubeconfig(folder, str(self.url).rstrip("/"), "default")

    def _where(self, kind: str, namespace: str) -> str:
        group = resource(kind)
        root = f"/apis/{group.group}/{group.version}" if group.group else f"/api/{group.version}"
        return f"{root}/namespaces/{namespace}/{group.plural}"

    async def _ask(self, method: str, where: str, body: Object | None = None) -> None:
        forbidden, self.forbidden = self.forbidden, set()
        try:
            async with self.request(method, where, json=body) as response:
                assert response.status < 300, await response.text()
        finally:
            self.forbidden = forbidden
