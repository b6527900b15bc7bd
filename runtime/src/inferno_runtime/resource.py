"""InfernoModel resources from YAML, as a cluster takes them: what of them concerns a runtime."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from inferno_runtime.config import EngineConfig, ModelConfig, RuntimeConfig, ServedModel, ServerConfig

logger = logging.getLogger(__name__)

API_VERSION = "inferno.ai/v1alpha1"
KIND = "InfernoModel"


class ResourceError(Exception):
    """A resource that cannot be served; the message says which file, which field and why."""


def load(paths: Iterable[Path]) -> RuntimeConfig:
    """The configuration that the resources in `paths` ask for. Raises `ResourceError`."""
    models: list[ServedModel] = []
    servers: dict[str, ServerConfig] = {}
    for path in paths:
        for document in _documents(path):
            served, server = _parse(document, path)
            if any(served.name == other.name for other in models):
                raise ResourceError(f"{path}: a second model with the name {served.name}")
            models.append(served)
            if server is not None:
                servers[served.name] = server
    if not models:
        raise ResourceError("the files hold no resource")
    distinct = set(servers.values())
    if len(distinct) > 1:
        raise ResourceError(
            f"the models {', '.join(servers)} share one server, but their spec.server differ; give it in one of them"
        )
    return RuntimeConfig(models=tuple(models), server=next(iter(distinct), ServerConfig()))


def _documents(path: Path) -> list[Any]:
    try:
        return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ResourceError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def _parse(document: Any, path: Path) -> tuple[ServedModel, ServerConfig | None]:
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (API_VERSION, KIND):
        raise ResourceError(f"{path}: not an {KIND} of {API_VERSION}")
    metadata, spec = document.get("metadata"), document.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise ResourceError(f"{path}: metadata.name is missing")
    if not isinstance(spec, dict):
        raise ResourceError(f"{path}: spec is missing")
    ignored = sorted(set(spec) - {"model", "engine", "server"})
    if ignored:
        logger.info("%s: these fields matter to a cluster only: %s", path, ", ".join(f"spec.{key}" for key in ignored))
    try:
        served = ServedModel(
            name=name,
            model=ModelConfig.model_validate(spec.get("model") or {}),
            engine=EngineConfig.model_validate(spec.get("engine") or {}),
        )
        server = ServerConfig.model_validate(spec["server"]) if spec.get("server") is not None else None
    except ValidationError as error:
        raise ResourceError(f"{path}: {explain(error)}") from error
    return served, server


def explain(error: ValidationError) -> str:
    """What pydantic found, in one line."""
    section = {"ModelConfig": "spec.model", "EngineConfig": "spec.engine", "ServerConfig": "spec.server"}.get(
        error.title
    )
    return "; ".join(
        ".".join([*([section] if section else []), *map(str, item["loc"])]) + f": {item['msg']}"
        for item in error.errors(include_url=False)
    )
