"""Every kopf decorator, and nothing else: what the watches report is handed on.

Only ``on.event`` is used, for which kopf keeps no state of its own: it leaves no annotation and no finalizer on any
resource. None is needed either, since Kubernetes deletes the children of a deleted model by their owner references.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import kopf

from inferno_operator import evictions
from inferno_operator.api.kinds import EVENT, WATCHED, Kind
from inferno_operator.api.resource import Key
from inferno_operator.store import Packed
from inferno_operator.workqueue import backoff


class _Backoffs:
    """How long kopf waits between its attempts to list or to watch. They have no end: a watch that gave up would end
    the process, and a new one would find the same API server.
    """

    def __iter__(self) -> Iterator[float]:
        failures = 0
        while True:
            failures += 1
            yield backoff(failures)


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Sets kopf up to do nothing but watch."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    # Bookmarks come about every minute; a stream that is silent for longer is dead.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 90
    settings.watching.reconnect_backoff = 1.0
    settings.watching.chunk_size = 500
    # kopf has a task for each object that it has just heard of; a handler takes no time, so neither need they.
    settings.queueing.idle_timeout = 0.5
    # It would kill the process so long after the watches were told to begin anew.
    settings.process.ultimate_exiting_timeout = None
    for kind in WATCHED:
        if kind.selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
    settings.watching.field_selectors[EVENT.group, EVENT.version, EVENT.plural] = evictions.FIELDS


@kopf.on.login()
async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """The credentials of the pod that this runs in, or those of a kubeconfig."""
    own = kopf.login_with_service_account(**arguments)
    return replace(own, server=own_server(os.environ)) if own else kopf.login_with_kubeconfig(**arguments)


def own_server(environment: Mapping[str, str]) -> str:
    """The API server of the cluster that this runs in. kopf asks the cluster's DNS for it, which may be what is broken."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def changed(event: kopf.RawEvent, memo: Any, param: Any = None, **_: Any) -> None:
    """A watched object was listed, made, changed or deleted."""
    kind: Kind = param
    memo.report(kind, event["type"], Packed.of(kind.name, event["object"]))


@kopf.on.event(EVENT.group, EVENT.version, EVENT.plural)
async def evicting(event: kopf.RawEvent, memo: Any, **_: Any) -> None:
    """A node evicts a pod, or has done so a while ago."""
    pod: Any = event["object"].get("regarding", {})
    memo.evicting(Key(pod.get("namespace", ""), pod.get("name", "")), pod.get("uid", ""))


for _kind in WATCHED:
    kopf.on.event(_kind.group, _kind.version, _kind.plural, id=_kind.plural, param=_kind)(changed)
