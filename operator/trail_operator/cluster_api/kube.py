"""The cluster's API in five verbs, on plain objects.

kubernetes_asyncio brings the connection: kubeconfig, service account, rotated tokens. Its models are left
aside: they take memory and forget fields that are newer than they are.
"""

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import ClientError
from kubernetes_asyncio import client, config

from trail_operator.cluster_api.lease import LeaseConflictError

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
_PAGE = 500
_TIMEOUT_S = 30.0
FIELD_MANAGER = "trail-operator"


class KubeError(Exception):
    """The API server refused; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def path(
    api_version: str, plural: str, namespace: str | None = None, name: str | None = None, part: str = ""
) -> str:
    """Path of a resource or a collection, as `path("apps/v1", "deployments", "shop", "llama")`."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    tail = f"/{quote(name, safe='')}" if name else ""
    return f"{root}{scope}/{plural}{tail}{f'/{part}' if part else ''}"


class Kube:
    """Every method raises KubeError for a refusal and OSError or TimeoutError where nobody answers."""

    def __init__(self, api: Any) -> None:
        """`api` is a kubernetes_asyncio ApiClient."""
        self._api = api

    @classmethod
    async def connect(cls) -> "Kube":
        """By the pod's service account, else by the kubeconfig. Raises ConnectionError."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            try:
                # The library reads the variable when it is imported, and not again.
                file = os.environ.get("KUBECONFIG") or None
                await config.load_kube_config(config_file=file, client_configuration=settings)
            except (config.ConfigException, OSError) as error:
                raise ConnectionError(
                    f"no cluster: no service account, and {error}; set KUBECONFIG"
                ) from error
        return cls(client.ApiClient(settings))

    async def __aenter__(self) -> "Kube":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections, as leaving a block with it does."""
        await self._api.close()

    async def get(self, where: str) -> Object:
        """One object."""
        return await self._call("GET", where)

    async def text(self, where: str) -> str:
        """What is no object, such as a page of a pod behind the API server's proxy."""
        return str(await self._ask("GET", where))

    async def all(self, where: str, label: str = "") -> list[Object]:
        """All objects of a collection, page by page; with a label as in `key=value`, those that have it."""
        out: list[Object] = []
        selector = [("labelSelector", label)] if label else []
        token = ""
        while True:
            more = [("continue", token)] if token else []
            page = await self._call("GET", where, query=[("limit", _PAGE), *selector, *more])
            out += page.get("items") or []
            token = str((page.get("metadata") or {}).get("continue") or "")
            if not token:
                return out

    async def create(self, where: str, body: Mapping[str, Any]) -> Object:
        """Makes an object."""
        return await self._call("POST", where, body)

    async def replace(self, where: str, body: Mapping[str, Any]) -> Object:
        """Puts an object in the place of an earlier version of it."""
        return await self._call("PUT", where, body)

    async def patch(self, where: str, body: Mapping[str, Any]) -> Object:
        """Applies a JSON merge patch."""
        return await self._call("PATCH", where, body, MERGE_PATCH)

    async def delete(self, where: str) -> Object:
        """Deletes an object."""
        return await self._call("DELETE", where)

    async def _call(self, method: str, where: str, *more: Any, **query: Any) -> Object:
        response = await self._ask(method, where, *more, **query)
        return response if isinstance(response, dict) else {}

    async def _ask(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        *,
        query: list[tuple[str, Any]] | None = None,
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        parameters = list(query or ())
        if body is not None:
            parameters.append(("fieldManager", FIELD_MANAGER))
        try:
            return await self._api.call_api(
                where,
                method,
                query_params=parameters,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                response_types_map=dict.fromkeys((200, 201, 202), "object"),
                _return_http_data_only=True,
                _request_timeout=_TIMEOUT_S,
            )
        except client.ApiException as error:
            raise KubeError(int(error.status or 0), _message(error)) from error
        except ClientError as error:
            # Not every one of its errors is an OSError: a server that hangs up in the middle, for one.
            raise ConnectionError(str(error) or type(error).__name__) from error


class Leases:
    """Leases of one namespace, for the elector."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def get(self, name: str) -> Object | None:
        """The Lease, None where there is none."""
        try:
            return await self._kube.get(self._path(name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, lease: Object) -> Object:
        """Makes it. Raises LeaseConflictError where it exists."""
        try:
            return await self._kube.create(self._path(), lease)
        except KubeError as error:
            raise _conflict(error) from error

    async def replace(self, lease: Object) -> Object:
        """Replaces it. Raises LeaseConflictError for an old version."""
        try:
            return await self._kube.replace(self._path(lease["metadata"]["name"]), lease)
        except KubeError as error:
            raise _conflict(error) from error

    def _path(self, name: str | None = None) -> str:
        return path("coordination.k8s.io/v1", "leases", self._namespace, name)


def _conflict(error: KubeError) -> Exception:
    return LeaseConflictError(str(error)) if error.status == 409 else error


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or "refused")
