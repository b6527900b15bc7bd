"""`/v1/models` and `/v1/models/{id}`."""

import msgspec

from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.registry import Offer


class ModelsHandler(BaseHandler):
    """Every model that the caller may use, under each of its names."""

    endpoint = "models"

    async def run(self) -> None:
        models = [
            _model(name, offer, self.context.started)
            for name, offer in self.context.registry.names()
            if self.caller.may_use(offer.names)
        ]
        await self.finish(msgspec.json.encode({"object": "list", "data": models}))


class ModelHandler(BaseHandler):
    """One model."""

    endpoint = "model"

    async def run(self) -> None:
        name = self.path_args[0]
        offer = self.context.registry.find(name, self.caller)
        self.model_label = offer.name
        await self.finish(msgspec.json.encode(_model(name, offer, self.context.started)))


def _model(name: str, offer: Offer, created: float) -> dict[str, object]:
    model: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": int(created),
        "owned_by": "inferno",
        "permission": [],
        "root": offer.name,  # an alias points to the model by its own name
        "parent": offer.parent,
    }
    if offer.served.loaded:
        model["max_model_len"] = offer.served.engine.context
        model["capabilities"] = offer.served.capabilities
    return model
