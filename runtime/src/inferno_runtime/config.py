"""Every knob of the runtime, defined once.

``spec.engine`` and ``spec.server`` of an InfernoModel *are* `EngineConfig` and `ServerConfig`: the CRD's schema, the
command line's flags and the reference page are all generated from the fields below. On the wire names are camelCase.

This module imports nothing heavy, because the operator imports it too.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Seconds = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Task = Literal["generate", "embed", "rerank"]  # what a model is served for


class Config(BaseModel):
    """A frozen section of the configuration; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)

    def wire(self) -> dict[str, Any]:
        """The section as it stands in YAML: camelCase, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class AdapterConfig(Config):
    """One of ``spec.model.adapters``: a LoRA adapter, and how it is known to clients."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern="^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        description="Clients ask for the model with this adapter as MODEL:NAME.",
    )
    source: str = Field(
        min_length=1,
        max_length=1024,
        description="Where the adapter is, a GGUF file, as convert_lora_to_gguf.py of llama.cpp makes it: `file:///PATH`, or an https://, hf:// or s3:// source, which is fetched first, with the model's credentials.",
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[a-f0-9]{64}$",
        description="The SHA-256 digest of the adapter's file, in lower-case hexadecimal. A file that does not match it is not served.",
    )
    scale: float = Field(
        default=1.0,
        ge=-100,
        le=100,
        description="How strongly the adapter changes the model, in multiples of what it was trained for.",
    )
    aliases: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 253},
        },
        description="Other names under which clients may ask for the model with this adapter.",
    )


class ModelConfig(Config):
    """``spec.model``: which model, and how it is known to clients."""

    source: str = Field(
        min_length=1,
        description="Where the model is: `file:///PATH` names a GGUF file, a folder with a GGUF or ONNX model, or an ONNX file with its tokenizer beside it; https://, hf:// and s3:// sources are fetched first.",
    )
    files: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(),
        max_length=64,
        description="Which files of a source that is a folder make up the model, by their paths in it; `*` stands for anything but a /. "
        "An https:// folder needs them, without `*`. Default: all.",
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[a-f0-9]{64}$",
        description="The SHA-256 digest of the model, in lower-case hexadecimal; what does not match it is not served. "
        "Of several files it is the digest of what `sha256sum` prints of them, sorted by path, but for hidden ones.",
    )
    endpoint: str | None = Field(
        default=None,
        max_length=1024,
        pattern=r"^https?://[^\s@?#]+$",
        description="Base URL of the server to ask in place of the usual one: a mirror of the Hugging Face hub for hf://, an S3 server for s3://. "
        "Default: what HF_ENDPOINT or AWS_ENDPOINT_URL says, else the service itself.",
    )
    aliases: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="Other names under which clients may ask for this model.",
    )
    task: Task | None = Field(
        default=None,
        description="What the model is served for: generate writes text, embed turns texts into vectors (/v1/embeddings), "
        "rerank says how well documents answer a query (/v1/rerank). "
        "A model that generates can embed as well, but does one or the other. Default: what the file says that it was made for.",
    )
    adapters: tuple[AdapterConfig, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="LoRA adapters that the model is served with beside itself. Each request is answered with the one that its model name names.",
    )
    projector: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        pattern="^(file:///.+|[^/:]+(/[^/:]+)*)$",
        description="The projector with which the model reads images, a GGUF file (mmproj): its name in the folder that the model comes from, or `file:///PATH`. "
        "Default: the file there whose name begins with mmproj, if the source is a folder.",
    )
    chat_template: str | None = Field(
        default=None,
        max_length=65_536,
        description="A jinja chat template to use in place of the model's own.",
    )


class EngineConfig(Config):
    """``spec.engine``: how the model is evaluated."""

    context_length: int | None = Field(
        default=None,
        ge=32,
        le=10_000_000,
        description="Tokens that one sequence can hold, prompt and answer together. "
        "Default: what the model was trained for, at most 8192.",
    )
    slots: int = Field(
        default=8,
        ge=1,
        le=256,
        description="Sequences that run at the same time; each has memory for contextLength tokens. More requests wait in the queue.",
    )
    max_queue: int = Field(
        default=256,
        ge=0,
        le=100_000,
        description="Sequences that may wait for a slot; beyond that a request is refused with 503.",
    )
    step_budget_ms: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Milliseconds of prompt evaluation between two tokens of the running sequences, which is how long a prompt holds up a stream; "
        "a short prompt is evaluated whole, and a long one in pieces of up to two and a half times as much, where smaller ones cost markedly more.",
    )
    micro_batch: int | None = Field(
        default=None,
        ge=16,
        le=8192,
        description="Most tokens that are evaluated in one pass over the weights. Default: measured at the first start; "
        "for a model that embeds 256, or fewer if its vocabulary is large.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads that evaluate the model. Default: what the first start and the steps since were measured to prefer, at most the CPU quota.",
    )
    speculation: Literal["off", "ngram"] = Field(
        default="ngram",
        description="Whether tokens are guessed ahead: ngram proposes what followed the last tokens earlier in the text, "
        "while that is measured to pay. The output is the same.",
    )
    draft: str | None = Field(
        default=None,
        max_length=1024,
        pattern="^file:///.+$",
        description="A small second model with the same vocabulary, `file:///PATH` of a GGUF file, that guesses where ngram finds nothing, "
        "while that is measured to pay; not loaded where speculation is off. It takes its own memory for slots and contextLength. "
        "In a cluster the path is one in the pod: `file:///models/PATH` lies in the claim of a pvc:// source.",
    )
    kv_layout: Literal["streams", "unified"] = Field(
        default="streams",
        description="How slots share the KV cache: streams gives each slot its own memory of contextLength tokens, "
        "fastest with many sequences; unified lets all slots draw on one pool of contextLength tokens, for a few long ones.",
    )
    prefix_cache_mb: int | None = Field(
        default=None,
        ge=0,
        le=1_048_576,
        description="MiB of host memory for prefixes that slots have no room for; 0 turns it off. "
        "Default: a quarter of what the memory limit leaves free after the model is loaded, at most 8192.",
    )
    kv_cache_type: Literal["f16", "bf16", "f32", "q8_0", "q4_0"] = Field(
        default="f16",
        description="Number format of the KV cache; q8_0 halves its memory and q4_0 quarters it; both need flash attention.",
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether attention is evaluated by the fused kernel; auto measures it at the first start.",
    )
    tuning: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether flashAttention, threads and microBatch, where they are not given, are measured at the first start "
        "(some 5 seconds) and remembered beside the model, in the user's cache or, where neither can be written, among temporary "
        "files; off takes their usual values.",
    )
    gpu_layers: int = Field(
        default=-1,
        ge=-1,
        le=10_000,
        description="Layers placed on a GPU where there is one; -1 places all. An ONNX model is placed there whole, unless this is 0.",
    )
    onnx_arena: Literal["on", "off"] = Field(
        default="on",
        description="Whether onnxruntime keeps the memory that a step took for the next one; off gives it back, and is slower.",
    )
    onnx_fusion: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether an ONNX model's graph is changed to be evaluated faster: the attention of one that generates is replaced by "
        "onnxruntime's own operator for it, which keeps the cache where it is, and one that embeds computes without padding. "
        "auto does so on a CPU where both were tried to compute the same.",
    )
    pooling: Literal["mean", "cls", "last"] | None = Field(
        default=None,
        description="How a model that embeds makes one vector of those of its tokens: their mean, or that of the first (cls) or the last token. "
        "Default: what the file says; if it says nothing, mean for an encoder and last for a decoder.",
    )
    stall_seconds: Seconds = Field(
        default=60,
        ge=5,
        le=3600,
        description="Seconds without progress after which the engine is taken for dead and started again.",
    )


class ServerConfig(Config):
    """``spec.server``: how requests are taken and answered."""

    max_body_bytes: int = Field(
        default=32 * 1024 * 1024,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Largest request body in bytes; a larger one is refused with 413.",
    )
    max_sequences: int = Field(
        default=128,
        ge=1,
        le=1024,
        description="Most sequences that one request may ask for: its prompts times n.",
    )
    inference_timeout_seconds: Seconds = Field(
        default=300,
        ge=1,
        le=86_400,
        description="Seconds that a request may take from its arrival to its last token; beyond that it ends with a timeout_error.",
    )
    overlong_inputs: Literal["refuse", "truncate"] = Field(
        default="refuse",
        description="What becomes of an input for an embedding that has more tokens than the model takes, where the request says nothing of truncate: "
        "refuse answers with 400, truncate leaves out its end.",
    )
    token_batch_size: int = Field(
        default=3,
        ge=1,
        le=256,
        description="Tokens sent together in one event of a stream; the first token leaves at once. 1 turns batching off.",
    )
    token_batch_ms: int = Field(
        default=50,
        ge=0,
        le=10_000,
        description="Milliseconds after which fewer than tokenBatchSize tokens are sent all the same.",
    )
    token_timeout_seconds: Seconds = Field(
        default=30,
        ge=1,
        le=86_400,
        description="Seconds that may pass between two tokens of a sequence that runs; beyond that it ends with a timeout_error.",
    )
    ack_timeout_seconds: Seconds = Field(
        default=30,
        ge=1,
        le=86_400,
        description="Seconds that a client may take nothing of a stream, or leave its full window unacknowledged; "
        "beyond that its request ends with a timeout_error.",
    )
    keep_alive_seconds: Seconds = Field(
        default=30,
        ge=1,
        le=86_400,
        description="Seconds of silence after which a stream sends a comment, and a WebSocket a ping; "
        "one whose ping stays unanswered as long is closed.",
    )
    stream_buffer_kb: int = Field(
        default=256,
        ge=1,
        le=1_048_576,
        description="KiB that a WebSocket may have been sent and not taken before its sequences are paused; from 70 % on tokens come in larger batches.",
    )
    websocket_requests: int = Field(
        default=16,
        ge=1,
        le=10_000,
        description="Most requests that may run on one WebSocket at the same time.",
    )
    websocket_message_bytes: int = Field(
        default=1024 * 1024,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Largest WebSocket message in bytes; a larger one ends its connection with code 1009.",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 253},
        },
        description="Origins of the web pages, beside the server's own, that may open WebSockets and event streams, "
        "such as `https://example.com`; `*` allows all.",
    )
    max_images: int = Field(
        default=16,
        ge=0,
        le=1024,
        description="Most images that one request may have.",
    )
    max_image_bytes: int = Field(
        default=20 * 1024 * 1024,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Largest image in bytes, as it is sent or fetched.",
    )
    max_image_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=200_000_000,
        description="Most pixels of an image; a model is shown up to 4 million of them, to which larger images are scaled down.",
    )
    image_hosts: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 253},
        },
        description="Hosts that images are fetched from where a request names them by http:// or https://: HOST, or HOST:PORT for a port other than 80 and 443; "
        "`*.example.com` is all below it, `*` any. They are never fetched from private addresses. Default: none.",
    )
    image_timeout_seconds: Seconds = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds that fetching an image may take.",
    )
    stored_responses: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Most responses of `/v1/responses` that are kept, for requests that go on from them; 0 keeps none.",
    )
    stored_response_kb: int = Field(
        default=65_536,
        ge=1,
        le=1_073_741_824,
        description="KiB that all of them may have together; beyond that whoever holds most loses the oldest.",
    )
    stored_response_seconds: Seconds = Field(
        default=86_400,
        ge=1,
        le=31_536_000,
        description="Seconds for which each is kept.",
    )
    drain_seconds: Seconds = Field(
        default=300,
        ge=0,
        le=86_400,
        description="Seconds that running requests are given to end after SIGTERM.",
    )
    keys_file: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="YAML file with the API keys that are let in, each with its own models, priority and limits; read again when it changes. "
        "Default: none, and everybody is let in.",
    )
    requests_per_minute: int = Field(
        default=100,
        ge=0,
        le=1_000_000_000,
        description="Requests that each API key, or each client address where no keys are set, may make in a minute; 0 is no limit.",
    )
    tokens_per_minute: int = Field(
        default=10_000,
        ge=0,
        le=1_000_000_000,
        description="Tokens, of prompts and answers together, that each of them may have in a minute; 0 is no limit.",
    )
    max_connections: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="Streams and WebSockets that each of them may have open at once; 0 is no limit.",
    )
    limits_store: str | None = Field(
        default=None,
        max_length=1024,
        pattern="^rediss?://.+$",
        description="Redis in which several servers count requests and tokens together, redis://HOST:PORT/DATABASE; "
        "while it cannot be reached each server counts for itself. Default: each server counts for itself.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe level that is logged.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="Form of the log's lines; auto is text on a terminal and JSON elsewhere.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        max_length=1024,
        pattern=r"^https?://[^\s@]+$",
        description="Base URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://collector:4318; a trace of each request is sent to it. "
        "Default: what OTEL_EXPORTER_OTLP_ENDPOINT names, and no traces without it.",
    )


LIVE: Final = frozenset(
    {
        "ack_timeout_seconds",
        "allowed_origins",
        "image_hosts",
        "image_timeout_seconds",
        "inference_timeout_seconds",
        "keep_alive_seconds",
        "log_level",
        "max_body_bytes",
        "max_connections",
        "max_image_bytes",
        "max_image_pixels",
        "max_images",
        "overlong_inputs",
        "requests_per_minute",
        "stream_buffer_kb",
        "token_batch_ms",
        "token_batch_size",
        "token_timeout_seconds",
        "tokens_per_minute",
        "websocket_requests",
    }
)
"""Fields of `ServerConfig` that a server takes on while it serves; a pod need not be replaced for them."""


class ListenConfig(Config):
    """Where the server listens; only flags, since in a cluster it is the operator's business."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 is every IPv4 interface."
    )
    port: int = Field(default=8000, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one.")


class ServedModel(Config):
    """One model and the engine that serves it."""

    name: str = Field(min_length=1, description="The name under which clients ask for the model.")
    model: ModelConfig
    engine: EngineConfig = EngineConfig()


class RuntimeConfig(Config):
    """What one runtime process serves."""

    models: tuple[ServedModel, ...] = Field(min_length=1)
    server: ServerConfig = ServerConfig()
    listen: ListenConfig = ListenConfig()
