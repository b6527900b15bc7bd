"""What an ONNX model is, from the settings in its folder and what its graph says of itself."""

from inferno_runtime.models.facts import ModelFacts, capabilities
from inferno_runtime.models.layout import PAST_INPUT, Layout
from inferno_runtime.models.onnx import Description


def onnx_facts(layout: Layout, description: Description | None) -> ModelFacts:
    """The model's facts, but for its size. Raises `ModelError`.

    Without a description, as of a graph that has not been fetched, it is not known how many weights there are.
    """
    task = layout.task(description)
    template = layout.chat_template
    tokenizer = layout.tokenizer_config.get("tokenizer_class")
    return ModelFacts(
        format="onnx",
        architecture=str(layout.config.get("model_type") or "")[:128] or None,
        parameters=description.parameters or None if description else None,
        quantization=description.quantization if description and description.weights else None,
        context_length=(layout.positions if task == "generate" else layout.window) or None,
        tokenizer=tokenizer[:128] if isinstance(tokenizer, str) and tokenizer else None,
        vocabulary_size=_whole(layout, "vocab_size"),
        chat_template=template is not None,
        capabilities=capabilities(template, task=task),
        hidden_size=_whole(layout, "hidden_size"),
        feed_forward_size=_whole(layout, "intermediate_size"),
        heads=_whole(layout, "num_attention_heads"),
        cache_values_per_token=_cache_values(layout, description) if task == "generate" else 0,
    )


def _cache_values(layout: Layout, description: Description | None) -> int | None:
    """Keys and values of one token in all layers: as the graph's inputs are shaped, or else as the settings say."""
    inputs = description.inputs.items() if description else ()
    shapes = [shape.dimensions for name, shape in inputs if PAST_INPUT.fullmatch(name)]
    sizes = [shape[1] * shape[3] for shape in shapes if len(shape) == 4 and shape[1] and shape[3]]
    if shapes and len(sizes) == len(shapes):
        return sum(sizes)
    heads, layers = _whole(layout, "num_attention_heads"), _whole(layout, "num_hidden_layers")
    shared, hidden = _whole(layout, "num_key_value_heads") or heads, _whole(layout, "hidden_size")
    width = _whole(layout, "head_dim") or (hidden // heads if hidden and heads else None)
    return 2 * layers * shared * width if layers and shared and width else None


def _whole(layout: Layout, key: str) -> int | None:
    value = layout.config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
