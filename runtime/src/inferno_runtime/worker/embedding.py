"""The engine's process for a model that embeds or reranks: load, warm up, then batches while there is work."""

import time

from inferno_runtime.backends import load_encoder
from inferno_runtime.backends.base import BackendError, Encoder, ModelError
from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.embedding import EmbeddingScheduler
from inferno_runtime.memory import give_back
from inferno_runtime.worker.connection import Connection
from inferno_runtime.worker.frames import Cancel, Embed, Encoded, Load, Ready
from inferno_runtime.worker.tuning import governor

_WARM_UP = 8  # tokens


def serve_embeddings(connection: Connection, load: Load) -> None:
    """Load a model that embeds or reranks and answer requests until the socket ends. Raises `ModelError`."""
    config = EngineConfig.model_validate(load.engine)
    encoder = load_encoder(load.path, config, load.task)
    _warm_up(encoder, load.path)
    scheduler = EmbeddingScheduler(
        encoder,
        step_budget=config.step_budget_ms / 1000,
        clock=time.monotonic,
        governor=governor(config, encoder.threads),
    )
    give_back()
    connection.send(Ready(encoder.info, encoder.context, config.slots, encoder.description, dict(encoder.settings)))
    while True:
        for frame in connection.receive(wait=not scheduler.busy):
            if isinstance(frame, Embed):
                scheduler.submit(frame.request)
            elif isinstance(frame, Cancel):
                scheduler.cancel(frame.id)
        if scheduler.busy:
            connection.send(Encoded(scheduler.step(), scheduler.active, scheduler.queued))


def _warm_up(encoder: Encoder, path: str) -> None:
    """Encode something: pages are touched, buffers laid out, and a model that cannot run shows it now."""
    try:
        encoder.encode([[1] * _WARM_UP])
    except BackendError as error:
        raise ModelError(f"{path}: {error}") from error
