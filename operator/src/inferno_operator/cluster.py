"""The Kubernetes API as the operator uses it. Nothing else speaks to the cluster, but for kopf's watches.

Every call has a time limit and ends in an object, in None where there is none, or in an exception of
`inferno_operator.errors`.
"""

import json
import time
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
from inferno_operator.api.kinds import KINDS, POD, Kind
from inferno_operator.api.resource import Key
from inferno_operator.errors import Conflict, Ending, RequestRejected, TransientError
from inferno_operator.stopwatch import waiting
from inferno_operator.store import Object, Packed, Store, version_of

READ_SECONDS: Final = 15.0
# A leader's last write must be over before its lease runs out: see leader.py, which stops writing that much earlier.
WRITE_SECONDS: Final = 5.0
_LIST_LIMIT: Final = 500
_LOG_LINES, _LOG_BYTES = 20, 16_384
# What server-side apply says of a misspelt field, with status 500.
_UNKNOWN_FIELD: Final = "field not declared in schema"
# The cause that the API server gives where a namespace goes.
_ENDING: Final = "NamespaceTerminating"
_SERVED_SECONDS: Final = 300.0
_LONGEST_RETRY_AFTER: Final = 60.0
# 401: the token has expired, and the next one lies in its file already. 410: a list took too long to be read on.
_MAY_PASS: Final = frozenset({401, 408, 410, 429})

_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Cluster:
    """The cluster, as one identity with one field manager.

    ``may_write`` is asked before each write and raises if it is not to be. ``store`` has what is watched.
    """

    def __init__(self, api: client.ApiClient, may_write: Callable[[], None]) -> None:
        # Never awaited, so it discovers nothing: the kinds in api/kinds.py are all there is, and a cache of discoveries
        # in a file is one thing more to go wrong.
        # The clients that are generated for each kind are 120 MB, and left out of the image: everything goes this way.
        self._dynamic = DynamicClient(api)
        self._may_write = may_write
        self._served: dict[str, tuple[bool, float]] = {}  # by kind: what was said, and until when it is believed
        self.store = Store()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object, or None if there is no such object. What is watched and known is not asked for."""
        if KINDS[kind].watched and (known := self.store.get(kind, Key(namespace, name))):
            return known
        try:
            found = await self._call(
                self._dynamic.get, _resource(kind, self._dynamic), name=name, namespace=namespace, seconds=READ_SECONDS
            )
        except _NotFound:
            return None
        self._learn(kind, found)
        return found

    async def versions(self, kind: Kind, namespace: str | None) -> tuple[dict[Key, int], int]:
        """The version of every object of a kind that concerns the operator, of a namespace or of all; and the version of
        the whole at that moment.
        """
        listed: dict[Key, int] = {}
        at, token = 0, None
        query = {"label_selector": kind.selector, "header_params": {"Accept": _METADATA_ONLY}}
        while True:
            page = await self._list(kind.name, namespace, limit=_LIST_LIMIT, _continue=token, **query)
            at = at or version_of(page)
            listed.update((Key.of(item), version_of(item)) for item in page.get("items") or ())
            token = page["metadata"].get("continue")
            if not token:
                return listed, at

    async def serves(self, kind: Kind, subresource: str | None = None) -> bool:
        """Whether the API server knows a kind, or a subresource of it; what it said is believed for some minutes."""
        name = f"{kind.plural}/{subresource}" if subresource else kind.plural
        said, until = self._served.get(name, (False, 0.0))
        if time.monotonic() < until:
            return said
        try:
            path = f"/{'apis' if kind.group else 'api'}/{kind.api_version}"
            found = await self._call(self._dynamic.request, "get", path, seconds=READ_SECONDS)
            said = any(resource["name"] == name for resource in found.get("resources", ()))
        except _NotFound:
            said = False
        self._served[name] = (said, time.monotonic() + _SERVED_SECONDS)
        return said

    async def check_served(self, kind: Kind, namespace: str | None) -> None:
        """Raises KindNotServed if the API server does not know a kind."""
        await self._list(kind.name, namespace, limit=1)

    async def log_tail(self, namespace: str, pod: str, container: str) -> str:
        """The last lines of a container's log; empty where they cannot be had, as of a pod that has just gone."""
        try:
            answer = await self._dynamic.request(
                "get",
                f"/api/v1/namespaces/{namespace}/pods/{pod}/log",
                query_params=[("container", container), ("tailLines", _LOG_LINES), ("limitBytes", _LOG_BYTES)],
                header_params={"Accept": "*/*"},
                serialize=False,
                _request_timeout=READ_SECONDS,
            )
            return str(await answer.text(errors="replace"))
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
            return ""

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Applies the manifest, server-side, and returns the object as it is then.

        By force: what the manifest names is the operator's to decide, and nothing else is touched.
        """
        applied = await self._write("apply", manifest, self._dynamic.server_side_apply, force_conflicts=True)
        self._learn(manifest["kind"], applied)
        return applied

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        """Applies the ``status`` of a manifest, as `apply` does."""
        resource = _resource(names.KIND, self._dynamic).subresources["status"]
        apply = self._dynamic.server_side_apply
        applied = await self._write("apply_status", manifest, apply, resource=resource, force_conflicts=True)
        self._learn(names.KIND, applied)
        return applied

    async def delete(self, body: Mapping[str, Any]) -> None:
        """Deletes an object, if it is still the same one."""
        metadata, kind = body["metadata"], body["kind"]
        self._may_write()
        options = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        try:
            await self._call(
                self._dynamic.delete,
                _resource(kind, self._dynamic),
                name=metadata["name"],
                namespace=metadata["namespace"],
                body={"apiVersion": "v1", "kind": "DeleteOptions"} | options,
                seconds=WRITE_SECONDS,
            )
        except _NotFound:
            return
        metrics.API_WRITES.labels("delete", kind).inc()

    async def resize(self, pod: Mapping[str, Any], container: str, resources: Mapping[str, Any]) -> None:
        """Tells a pod that runs to go on with other resources."""
        resource = _resource(POD.name, self._dynamic).subresources["resize"]
        body = {
            "kind": POD.name,
            "metadata": {name: pod["metadata"][name] for name in ("name", "namespace", "uid")},
            "spec": {"containers": [{"name": container, "resources": resources}]},
        }
        self._learn(POD.name, await self._write("resize", body, self._dynamic.patch, resource=resource))

    async def replica_sets(self, deployment: Mapping[str, Any]) -> list[Object]:
        """The ReplicaSets with the labels of a Deployment's pods."""
        metadata = deployment["metadata"]
        selector = ",".join(f"{name}={text}" for name, text in deployment["spec"]["selector"]["matchLabels"].items())
        found = await self._list("ReplicaSet", metadata["namespace"], label_selector=selector, limit=_LIST_LIMIT)
        return list(found.get("items") or ())

    async def replace_replica_set(self, body: Mapping[str, Any]) -> None:
        """Replaces a ReplicaSet that has not changed since it was read. Raises Conflict if it has."""
        await self._write("replace", {"kind": "ReplicaSet", "apiVersion": "apps/v1", **body}, self._dynamic.replace)

    async def create_once(self, manifest: Mapping[str, Any]) -> None:
        """Creates the object unless there is one of that name."""
        try:
            await self._write("create", manifest, self._dynamic.create)
        except _AlreadyExists:
            return

    async def create_lease(self, manifest: Mapping[str, Any]) -> Object:
        """Creates a Lease. Raises Conflict if somebody else was faster."""
        resource = _resource("Lease", self._dynamic)
        namespace = manifest["metadata"]["namespace"]
        return await self._call(
            self._dynamic.create, resource, body=dict(manifest), namespace=namespace, seconds=WRITE_SECONDS
        )

    async def replace_lease(self, manifest: Mapping[str, Any]) -> Object:
        """Replaces a Lease that has not changed since it was read. Raises Conflict if it has."""
        resource = _resource("Lease", self._dynamic)
        namespace = manifest["metadata"]["namespace"]
        return await self._call(
            self._dynamic.replace, resource, body=dict(manifest), namespace=namespace, seconds=WRITE_SECONDS
        )

    def _learn(self, kind: str, body: Object) -> None:
        """Keeps what was read or written, if a watch will tell how it goes on with it."""
        selected = kind == names.KIND or body["metadata"].get("labels", {}).get(names.MANAGED_BY) == names.FIELD_MANAGER
        if KINDS[kind].watched and selected:
            self.store.put(kind, Packed.of(kind, body))

    async def _list(self, kind: str, namespace: str | None, **query: Any) -> Object:
        try:
            return await self._call(
                self._dynamic.get,
                _resource(kind, self._dynamic),
                namespace=namespace,
                seconds=READ_SECONDS,
                **query,
            )
        except _NotFound as error:
            raise KindNotServed(f"the API server does not know the kind {kind}") from error

    async def _write(
        self, verb: str, manifest: Mapping[str, Any], method: Callable[..., Any], **options: Any
    ) -> Object:
        metadata, kind = manifest["metadata"], manifest["kind"]
        options.setdefault("resource", _resource(kind, self._dynamic))
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
            with waiting():
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


class _AlreadyExists(Conflict):
    reason = "AlreadyExists"


def _resource(kind: str, dynamic: DynamicClient) -> Resource:
    served = KINDS[kind]
    subresources = {
        name: {"name": f"{served.plural}/{name}", "kind": kind, "namespaced": True} for name in ("status", "resize")
    }
    return Resource(
        kind=kind,
        namespaced=True,
        client=dynamic,
        prefix="apis" if served.group else "api",
        group=served.group,
        api_version=served.version,
        name=served.plural,
        subresources=subresources,
    )


def _as_it_is(_: DynamicClient, answer: Object) -> Object:
    return answer


def _translated(error: ApiException) -> TransientError | RequestRejected:
    """What an answer means for the one who asked: whether it is worth asking again."""
    said = _message(error)
    if error.status == 404:
        return _NotFound(said)
    if error.status == 409 and "AlreadyExists" in str(error.body):
        return _AlreadyExists(said)
    if error.status == 409:
        return Conflict(said)
    if error.status == 403 and _ENDING in str(error.body):
        return Ending(said)
    if _UNKNOWN_FIELD in said:
        return RequestRejected(said)
    if error.status in _MAY_PASS or error.status is None or error.status >= 500:
        return TransientError(f"{said} ({error.status})", _retry_after(error))
    return RequestRejected(said)


def _retry_after(error: ApiException) -> float:
    try:
        return min(float((error.headers or {}).get("Retry-After", 0)), _LONGEST_RETRY_AFTER)
    except ValueError:
        return 0.0  # a date, which Kubernetes never sends


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
