"""What a trace says of a generation, by OpenTelemetry's conventions for generative AI."""

from collections.abc import Sequence

from inferno_runtime.openai.requests import GenerationRequest
from inferno_runtime.server.tracing import Attribute
from inferno_runtime.worker.generation import Generation

_MOST_NAME = 128  # characters of a model's name, which is the client's word
_FIELDS = ("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed")


def attributes(
    operation: str, request: GenerationRequest | None, model: str, generations: Sequence[Generation]
) -> dict[str, Attribute]:
    """A request's attributes; prompts and answers are none of them.

    request: None if it could not be read; model: the name of the model that it went to, empty if to none.
    """
    told: dict[str, Attribute] = {"gen_ai.operation.name": operation, "gen_ai.provider.name": "inferno"}
    if request is not None:
        told["gen_ai.request.model"] = request.model[:_MOST_NAME]
        for name in _FIELDS:
            if (value := getattr(request, name)) is not None:
                told[f"gen_ai.request.{name}"] = value
    if model:
        told["gen_ai.response.model"] = model
    if generations:
        told["gen_ai.usage.input_tokens"] = sum(generation.prompt_tokens for generation in generations)
        told["gen_ai.usage.output_tokens"] = sum(generation.completion_tokens for generation in generations)
        told["gen_ai.response.finish_reasons"] = [
            generation.finish_reason.value if generation.finish_reason else "error" for generation in generations
        ]
    return told


def events(generations: Sequence[Generation], offset: float) -> tuple[tuple[str, float], ...]:
    """When the phases of a request began: the first of its sequences counts, and the last for its end.

    offset: what the loop's clock must be moved by to be Unix time.
    """
    begun = [generation for generation in generations if generation.first_token_at is not None]
    happened: list[tuple[str, float]] = []
    if generations:
        happened.append(("queued", min(generation.submitted for generation in generations)))
    if begun:
        # Only with the first token the engine's times are known.
        usages = [(generation.submitted, generation.usage) for generation in begun]
        happened.append(("prefill", min(submitted + usage.queued for submitted, usage in usages)))
        happened.append(("prefilled", min(submitted + usage.queued + usage.prefill for submitted, usage in usages)))
        happened.append(("first_token", min(generation.first_token_at or 0.0 for generation in begun)))
        happened.append(("last_token", max(generation.last_token_at or 0.0 for generation in begun)))
    return tuple((name, at + offset) for name, at in happened)
