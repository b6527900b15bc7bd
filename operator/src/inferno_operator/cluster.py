"""The Kubernetes API as the operator uses it. Nothing else speaks to the cluster, but for kopf's watches.

Every call has a time limit and ends in an object, in None where there is none, or in an exception of
`inferno_operator.errors`.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.resource import Resource

from inferno_operator import metrics
from inferno_operator.api import names
from inferno_operator.errors import RequestRejected, TransientError

Object = dict[str, Any]

READ_SECONDS: Final = 15.0
# A leader's last write must be over before its lease runs out: see leader.py, which stops writing that much earlier.
WRITE_SECONDS: Final = 5.0
_LIST_LIMIT: Final = 500
_LOG_LINES, _LOG_BYTES = 20, 16_384
# 409: somebody else has just written the same object. 404: it, or its namespace, has just gone. Both look different at
# the next look.
_MAY_PASS: Final = frozenset({401, 404, 408, 409, 410, 429})

_RESOURCES: Final[Mapping[str, Mapping[str, Any]]] = {
    "ConfigMap": {"prefix": "api", "group": "", "api_version": "v1", "name": "configmaps"},
    "Deployment": {"prefix": "apis", "group": "apps", "api_version": "v1", "name": "deployments"},
    "Event": {"prefix": "apis", "group": "events.k8s.io", "api_version": "v1", "name": "events"},
    "Job": {"prefix": "apis", "group": "batch", "api_version": "v1", "name": "jobs"},
    "Lease": {"prefix": "apis", "group": "coordination.k8s.io", "api_version": "v1", "name": "leases"},
    "PersistentVolumeClaim": {"prefix": "api", "group": "", "api_version": "v1", "name": "persistentvolumeclaims"},
    "Pod": {"prefix": "api", "group": "", "api_version": "v1", "name": "pods"},
    "Service": {"prefix": "api", "group": "", "api_version": "v1", "name": "services"},
    names.KIND: {
        "prefix": "apis",
        "group": names.GROUP,
        "api_version": names.VERSION,
        "name": names.PLURAL,
        "subresources": {"status": {"name": f"{names.PLURAL}/status", "kind": names.KIND, "namespaced": True}},
    },
}


class Cluster:
    """The cluster, as one identity with one field manager.

    ``may_write`` is asked before each write and raises if it is not to be.
    """

    def __init__(self, api: client.ApiClient, may_write: Callable[[], None]) -> None:
        # Never awaited, so it discovers nothing: the kinds above are all there is, and a cache of discoveries in a file
        # is one thing more to go wrong.
        self._dynamic = DynamicClient(api)
        self._core = client.CoreV1Api(api)
        self._may_write = may_write

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object, or None if there is no such object."""
        resource = self._resource(kind)
        try:
            return await self._call(self._dynamic.get, resource, name=name, namespace=namespace, seconds=READ_SECONDS)
        except _NotFound:
            return None

    async def models(self, namespace: str | None) -> AsyncIterator[Object]:
        """Every InfernoModel of a namespace, or of all."""
        token = None
        while True:
            page = await self._list(names.KIND, namespace, limit=_LIST_LIMIT, _continue=token)
            for item in page.get("items", ()):
                yield item
            token = page.get("metadata", {}).get("continue")
            if not token:
                return

    async def pods(self, namespace: str, label_selector: str, limit: int) -> list[Object]:
        """Pods by label, at most ``limit``."""
        page = await self._list("Pod", namespace, label_selector=label_selector, limit=limit)
        items: list[Object] = page.get("items", [])
        return items

    async def log_tail(self, namespace: str, pod: str, container: str) -> str:
        """The last lines of a container's log; empty where they cannot be had, as of a pod that has just gone."""
        try:
            return str(
                await self._core.read_namespaced_pod_log(
                    pod,
                    namespace,
                    container=container,
                    tail_lines=_LOG_LINES,
                    limit_bytes=_LOG_BYTES,
                    _request_timeout=READ_SECONDS,
                )
            )
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
            return ""

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Applies the manifest, server-side, and returns the object as it is then.

        By force: what the manifest names is the operator's to decide, and nothing else is touched.
        """
        return await self._write("apply", manifest, self._dynamic.server_side_apply, force_conflicts=True)

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        """Applies the ``status`` of a manifest, as `apply` does."""
        resource = self._resource(names.KIND).subresources["status"]
        apply = self._dynamic.server_side_apply
        return await self._write("apply_status", manifest, apply, resource=resource, force_conflicts=True)

    async def create_once(self, manifest: Mapping[str, Any]) -> None:
        """Creates the object unless there is one of that name."""
        try:
            await self._write("create", manifest, self._dynamic.create)
        except _AlreadyExists:
            return

    async def create_lease(self, manifest: Mapping[str, Any]) -> Object:
        """Creates a Lease. Raises TransientError if somebody else was faster."""
        resource = self._resource("Lease")
        namespace = manifest["metadata"]["namespace"]
        return await self._call(
            self._dynamic.create, resource, body=dict(manifest), namespace=namespace, seconds=WRITE_SECONDS
        )

    async def replace_lease(self, manifest: Mapping[str, Any]) -> Object:
        """Replaces a Lease that has not changed since it was read. Raises TransientError if it has."""
        resource = self._resource("Lease")
        namespace = manifest["metadata"]["namespace"]
        return await self._call(
            self._dynamic.replace, resource, body=dict(manifest), namespace=namespace, seconds=WRITE_SECONDS
        )

    def _resource(self, kind: str) -> Resource:
        return Resource(kind=kind, namespaced=True, client=self._dynamic, **_RESOURCES[kind])

    async def _list(self, kind: str, namespace: str | None, **query: Any) -> Object:
        try:
            return await self._call(
                self._dynamic.get, self._resource(kind), namespace=namespace, seconds=READ_SECONDS, **query
            )
        except _NotFound as error:
            raise KindNotServed(f"the API server does not know the kind {kind}") from error

    async def _write(
        self, verb: str, manifest: Mapping[str, Any], method: Callable[..., Any], **options: Any
    ) -> Object:
        metadata, kind = manifest["metadata"], manifest["kind"]
        options.setdefault("resource", self._resource(kind))
        self._may_write()
        written = await self._call(
            method,
            body=dict(manifest),
            namespace=metadata["namespace"],
            field_manager=names.FIELD_MANAGER,
            seconds=WRITE_SECONDS,
            **options,
        )
        metrics.API_WRITES.labels(verb, kind).inc()
        return written

    async def _call(self, method: Callable[..., Any], *args: Any, seconds: float, **options: Any) -> Object:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            answer: Object = await method(*args, serializer=_as_it_is, _request_timeout=timeout, **options)
        except ApiException as error:
            raise _translated(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(f"the API server cannot be reached: {error or type(error).__name__}") from error
        return answer


class NoCluster(Exception):
    """It is not known where the cluster is, or who to be there."""


class KindNotServed(TransientError):
    """The API server has no such kind, perhaps not yet: its CustomResourceDefinition is not installed."""

    reason = "KindNotServed"


class _NotFound(TransientError):
    reason = "NotFound"


class _AlreadyExists(TransientError):
    reason = "AlreadyExists"


def _as_it_is(_: DynamicClient, answer: Object) -> Object:
    return answer


def _translated(error: ApiException) -> TransientError | RequestRejected:
    """What an answer means for the one who asked: whether it is worth asking again."""
    said = _message(error)
    if error.status == 404:
        return _NotFound(said)
    if error.status == 409 and "AlreadyExists" in str(error.body):
        return _AlreadyExists(said)
    if error.status in _MAY_PASS or error.status is None or error.status >= 500:
        return TransientError(f"{said} ({error.status})")
    return RequestRejected(said)


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or f"the API server answered {error.status}")


@asynccontextmanager
async def connect(may_write: Callable[[], None]) -> AsyncIterator[Cluster]:
    """The cluster that KUBECONFIG, or ~/.kube/config, or the pod that this runs in points to."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise NoCluster(f"neither a pod's credentials nor a kubeconfig: {error}; set KUBECONFIG") from error
    configuration.retries = None
    async with client.ApiClient(configuration) as api:
        yield Cluster(api, may_write)
