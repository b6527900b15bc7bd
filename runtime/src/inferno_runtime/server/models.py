"""`/v1/models` and `/v1/models/{id}`."""

import msgspec

from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.registry import Served


class ModelsHandler(BaseHandler):
    """Every model that the caller may use, under each of its names."""

    endpoint = "models"

    async def run(self) -> None:
        models = [
            _model(name, served, self.context.started)
            for name, served in self.context.registry.names()
            if self.caller.may_use(served.names)
        ]
        await self.finish(msgspec.json.encode({"object": "list", "data": models}))


class ModelHandler(BaseHandler):
    """One model."""

    endpoint = "model"

    async def run(self) -> None:
        name = self.path_args[0]
        served = self.context.registry.find(name)
        self.caller.check_model(name, served.names)
        self.model_label = served.name
        await self.finish(msgspec.json.encode(_model(name, served, self.context.started)))


def _model(name: str, served: Served, created: float) -> dict[str, object]:
    model: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": int(created),
        "owned_by": "inferno",
        "permission": [],
        "root": served.name,  # an alias points to the model by its own name
        "parent": None,
    }
    if served.loaded:
        model["max_model_len"] = served.engine.context
    return model
