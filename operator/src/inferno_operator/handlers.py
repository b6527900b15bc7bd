"""Every kopf decorator, and nothing else: what the watches report goes to the controller's queue.

Only ``on.event`` is used, for which kopf keeps no state of its own: it leaves no annotation and no finalizer on any
resource. None is needed either, since Kubernetes deletes the children of a deleted model by their owner references.
"""

from typing import Any

import kopf

from inferno_operator.api import names
from inferno_operator.api.resource import owners
from inferno_operator.controller import Controller

_CHILDREN = (("apps", "v1", "deployments"), ("", "v1", "services"), ("", "v1", "configmaps"))


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Sets kopf up to do nothing but watch."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # Bookmarks come about every minute; a stream that is silent for longer is dead.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 90
    settings.watching.chunk_size = 500
    settings.process.ultimate_exiting_timeout = 30
    for group, version, plural in _CHILDREN:
        settings.watching.label_selectors[group, version, plural] = names.MANAGED_SELECTOR


@kopf.on.login()
async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """The credentials of the pod that this runs in, or those of a kubeconfig."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


@kopf.on.event(names.GROUP, names.VERSION, names.PLURAL)
async def model(event: kopf.RawEvent, meta: kopf.Meta, memo: Any, **_: Any) -> None:
    """An InfernoModel was listed, made, changed or deleted."""
    controller: Controller = memo.controller
    if event["type"] == "DELETED":
        controller.model_deleted(meta["namespace"], meta["name"])
    else:
        controller.model_changed(meta["namespace"], meta["name"], meta["generation"])


@kopf.on.event("apps", "v1", "deployments")
@kopf.on.event("", "v1", "services")
@kopf.on.event("", "v1", "configmaps")
async def child(meta: kopf.Meta, memo: Any, **_: Any) -> None:
    """Something that belongs to an InfernoModel was listed, made, changed or deleted."""
    controller: Controller = memo.controller
    for owner in owners(meta):
        controller.child_changed(meta["namespace"], owner)
