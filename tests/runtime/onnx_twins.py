"""The ONNX twins of GGUF models: the same weights, the same vocabulary, laid out as exporters do it.

So whatever is expected of a GGUF model can be expected of its twin, and no second model need be kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.runtime.onnx_graph import Graph, Value

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WINDOW = 100  # tokens that attention with one sees
_WORD = "\N{LOWER ONE EIGHTH BLOCK}"  # before the first piece of a word, in a GGUF file
_POOLING_SWITCHES = {
    gguf.PoolingType.MEAN: "pooling_mode_mean_tokens",
    gguf.PoolingType.CLS: "pooling_mode_cls_token",
    gguf.PoolingType.LAST: "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Export:
    """How a decoder is exported.

    positions: `given` by position_ids; `counted` from the columns of the cache, without such an input; or `ignored`:
    counted, though there is an input. merged: two branches, of which the one with a past was made for one token at a time.
    kept: with an input that says how many logits are wanted. external: with the weights in a file of their own.
    fused: with onnxruntime's own operator for attention, as onnxruntime-genai writes it: it counts a row's tokens by its
    mask, and wants them at the row's beginning. odd: with something in its attention that the twin has not.
    """

    positions: Literal["given", "counted", "ignored"] = "given"
    cache: Any = np.float32
    merged: bool = False
    kept: bool = False
    external: bool = False
    fused: bool = False
    odd: Literal["", "halves turned", "norms", "window", "scale"] = ""
    name: str = "model.onnx"


class Source:
    """A GGUF file's weights and metadata."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._fields = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = str(self.get("general.architecture"))
        self.layers = int(self.own("block_count"))
        self.width = int(self.own("embedding_length"))
        self.heads = int(self.own("attention.head_count"))
        self.kv_heads = int(self.own("attention.head_count_kv", self.heads))
        self.context = int(self.own("context_length"))
        self.tokens: list[str] = self.get("tokenizer.ggml.tokens")

    def get(self, name: str, default: Any = None) -> Any:
        return self._fields[name].contents() if name in self._fields else default

    def own(self, name: str, default: Any = None) -> Any:
        return self.get(f"{self.architecture}.{name}", default)

    def weight(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    def control_tokens(self) -> list[tuple[str, bool]]:
        """The tokens that are found in a text before it is cut into words, and whether they are special."""
        kinds = self.get("tokenizer.ggml.token_type")
        found = {gguf.TokenType.CONTROL: True, gguf.TokenType.USER_DEFINED: False}
        return [(text, found[kind]) for text, kind in zip(self.tokens, kinds, strict=True) if kind in found]


def decoder(path: Path, folder: Path, export: Export = Export(), *, positions: int = 0) -> Path:
    """The twin of a Llama model, in optimum's layout. positions: that it says it has; 0 for as many as the model."""
    source = Source(path)
    size = source.width // source.heads
    _DecoderGraph(source, export).save(folder / export.name)
    _byte_level(source).save(str(folder / "tokenizer.json"))
    _write(
        folder / "config.json",
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=len(source.tokens),
        max_position_embeddings=positions or source.context,
        num_key_value_heads=source.kv_heads,
        head_dim=size,
        eos_token_id=source.get("tokenizer.ggml.eos_token_id"),
    )
    _write(
        folder / "tokenizer_config.json",
        bos_token=source.tokens[source.get("tokenizer.ggml.bos_token_id")],
        eos_token=source.tokens[source.get("tokenizer.ggml.eos_token_id")],
        chat_template=source.get("tokenizer.chat_template"),
    )
    return folder


def encoder(path: Path, folder: Path, *, pooled: bool = False) -> Path:
    """The twin of a BERT model, in sentence-transformers' layout. pooled: whether the graph makes the vectors by itself."""
    source = Source(path)
    graph = Graph()
    states = graph.op("Identity", _bert(graph, source), to=["last_hidden_state"])
    outputs: list[Value] = [(states, np.float32, ("batch", "tokens", source.width))]
    if pooled:
        seen = graph.op("Unsqueeze", graph.cast("attention_mask", np.float32), graph.ints(2))
        seen = graph.op("Expand", seen, graph.op("Shape", states))
        sums, counts = (
            graph.op("ReduceSum", x, graph.ints(1), keepdims=0) for x in (graph.op("Mul", states, seen), seen)
        )
        graph.op("Div", sums, counts, to=["sentence_embedding"])
        outputs.append(("sentence_embedding", np.float32, ("batch", source.width)))
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    graph.save(folder / "model.onnx", [(name, np.int64, ("batch", "tokens")) for name in inputs], outputs)
    _word_piece(source).save(str(folder / "tokenizer.json"))
    _write(
        folder / "config.json",
        model_type="bert",
        vocab_size=len(source.tokens),
        max_position_embeddings=source.context,
        num_attention_heads=source.heads,
    )
    pooling = gguf.PoolingType(source.own("pooling_type", 0))
    if pooling in _POOLING_SWITCHES:
        _write(folder / "1_Pooling" / "config.json", **{_POOLING_SWITCHES[pooling]: True})
    return folder


def cross_encoder(path: Path, folder: Path, labels: int = 1) -> Path:
    """The twin of a BERT model that ranks, as optimum exports a classifier of sequences."""
    source = Source(path)
    graph = Graph()
    first = graph.op("Gather", _bert(graph, source), graph.value(0, np.int64), axis=1)
    hidden = graph.op("Tanh", graph.linear(first, source.weight("cls.weight"), source.weight("cls.bias")))
    graph.linear(hidden, source.weight("cls.output.weight"), source.weight("cls.output.bias"))
    graph.op("Identity", graph.nodes[-1].output[0], to=["logits"])
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    graph.save(
        folder / "model.onnx",
        [(name, np.int64, ("batch", "tokens")) for name in inputs],
        [("logits", np.float32, ("batch", labels))],
    )
    _word_piece(source).save(str(folder / "tokenizer.json"))
    _write(
        folder / "config.json",
        model_type="bert",
        vocab_size=len(source.tokens),
        max_position_embeddings=source.context,
        num_attention_heads=source.heads,
    )
    return folder


class _DecoderGraph:
    """The nodes of a Llama model with a cache."""

    def __init__(self, source: Source, export: Export) -> None:
        self._source = source
        self._export = export
        self._size = source.width // source.heads
        self._graph = Graph()
        self._embedding = self._graph.value(source.weight("token_embd.weight"))
        self._names = [f"{layer}.{kind}" for layer in range(source.layers) for kind in ("key", "value")]

    def save(self, path: Path) -> None:
        export, kv_heads = self._export, self._source.kv_heads
        outputs = ["logits", *(f"present.{name}" for name in self._names)]
        if export.merged:
            branches = {f"{name}_branch": self._branch(name == "then") for name in ("then", "else")}
            self._graph.op("If", "use_cache_branch", to=outputs, **branches)
        else:
            self._body(self._graph, outputs, behind_a_past=True)
        inputs: list[tuple[str, Any, tuple[Any, ...]]] = [("input_ids", np.int64, ("batch", "tokens"))]
        inputs.append(("attention_mask", np.int64, ("batch", "total")))
        if export.positions != "counted":
            inputs.append(("position_ids", np.int64, ("batch", "tokens")))
        if export.kept:
            inputs.append(("num_logits_to_keep", np.int64, ()))
        if export.merged:
            inputs.append(("use_cache_branch", np.bool_, (1,)))
        cells = ("batch", kv_heads, "past", self._size)
        inputs += [(f"past_key_values.{name}", export.cache, cells) for name in self._names]
        logits = ("logits", np.float32, ("batch", "kept", len(self._source.tokens)))
        present = [(name, export.cache, ("batch", kv_heads, "total", self._size)) for name in outputs[1:]]
        self._graph.save(path, inputs, [logits, *present], external=export.external)

    def _branch(self, behind_a_past: bool) -> Any:
        graph = Graph("then_" if behind_a_past else "else_", self._graph.weights)
        names = self._body(graph, [], behind_a_past=behind_a_past)
        return graph.branch(names)

    def _body(self, graph: Graph, outputs: list[str], *, behind_a_past: bool) -> list[str]:
        """The whole model. Returns the names of the logits and of the cache."""
        source, epsilon = self._source, float(self._source.own("attention.layer_norm_rms_epsilon"))
        tokens, total = graph.size("input_ids", 1), graph.size("attention_mask", 1)
        columns = self._range(graph, graph.op("Sub", total, tokens), total)
        cos, sin = ("", "") if self._export.fused else self._angles(graph, columns)
        bias = (
            ""
            if self._export.fused
            else self._bias(graph, columns, total, causal=not (self._export.merged and behind_a_past))
        )
        x = graph.op("Gather", self._embedding, "input_ids")
        present: list[str] = []
        for layer in range(source.layers):
            name = f"blk.{layer}"
            h = self._norm(graph, x, f"{name}.attn_norm.weight", epsilon)
            if self._export.fused:
                y = self._fused(graph, h, name, layer, total, bool(outputs), present)
            else:
                y = self._attention(graph, h, name, layer, (cos, sin, bias), bool(outputs), behind_a_past, present)
            x = graph.op("Add", x, self._linear(graph, y, f"{name}.attn_output"))
            h = self._norm(graph, x, f"{name}.ffn_norm.weight", epsilon)
            gate = self._linear(graph, h, f"{name}.ffn_gate")
            gate = graph.op("Mul", gate, graph.op("Sigmoid", gate))
            h = graph.op("Mul", gate, self._linear(graph, h, f"{name}.ffn_up"))
            x = graph.op("Add", x, self._linear(graph, h, f"{name}.ffn_down"))
        if self._export.kept:
            ends = graph.op("Unsqueeze", graph.op("Neg", "num_logits_to_keep"), graph.ints(0))
            x = graph.op("Slice", x, ends, graph.ints(1 << 40), graph.ints(1))
        x = self._norm(graph, x, "output_norm.weight", epsilon)
        logits = graph.op("MatMul", x, graph.op("Transpose", self._embedding, perm=[1, 0]), to=outputs[:1])
        return [logits, *present]

    def _attention(
        self,
        graph: Graph,
        h: str,
        name: str,
        layer: int,
        shared: tuple[str, str, str],
        named: bool,
        behind_a_past: bool,
        present: list[str],
    ) -> str:
        """Attention of plain operators. shared: cosines, sines and what is hidden."""
        source, (cos, sin, bias) = self._source, shared
        groups = source.heads // source.kv_heads
        q = graph.heads(self._linear(graph, h, f"{name}.attn_q"), source.kv_heads, groups, self._size)
        k = graph.heads(self._linear(graph, h, f"{name}.attn_k"), source.kv_heads, self._size)
        v = graph.heads(self._linear(graph, h, f"{name}.attn_v"), source.kv_heads, self._size)
        if self._export.odd == "norms":
            q = graph.heads(self._linear(graph, h, f"{name}.attn_q"), source.heads, self._size)
            q, k = (graph.op("Div", x, graph.op("ReduceL2", x, axes=[-1])) for x in (q, k))
            q = self._rotate(graph, q, cos, sin)
            q = graph.op("Reshape", q, graph.ints(0, source.kv_heads, groups, -1, self._size))
        else:
            q = self._rotate(graph, q, cos, sin, grouped=True)
        k = self._rotate(graph, k, cos, sin)
        k, v = (
            self._extended(graph, new, f"{layer}.{kind}", named, behind_a_past, present)
            for new, kind in ((k, "key"), (v, "value"))
        )
        k, v = (graph.op("Unsqueeze", value, graph.ints(2)) for value in (k, v))
        scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
        scale = 0.1 if self._export.odd == "scale" else self._size**-0.5
        scores = graph.op("Add", graph.op("Mul", scores, graph.value(scale)), bias)
        y = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
        y = graph.op("Transpose", y, perm=[0, 3, 1, 2, 4])
        return graph.op("Reshape", y, graph.ints(0, 0, source.width))

    def _fused(self, graph: Graph, h: str, name: str, layer: int, total: str, named: bool, present: list[str]) -> str:
        """Attention as one operator, positions and cache included."""
        source = self._source
        angles = np.outer(np.arange(source.context), self._speeds())
        counts = graph.op("ReduceSum", "attention_mask", graph.ints(1), keepdims=0)
        counts = graph.cast(graph.op("Sub", counts, graph.ints(1)), np.int32)
        cells = [f"{layer}.key", f"{layer}.value"]
        y = f"attended_{layer}"
        graph.op(
            "GroupQueryAttention",
            *(self._linear(graph, h, f"{name}.attn_{part}") for part in "qkv"),
            *(f"past_key_values.{cell}" for cell in cells),
            counts,
            graph.cast(total, np.int32),
            graph.value(np.cos(angles)),
            graph.value(np.sin(angles)),
            to=[y, *(f"present.{cell}" for cell in cells)],
            domain="com.microsoft",
            num_heads=source.heads,
            kv_num_heads=source.kv_heads,
            do_rotary=1,
            rotary_interleaved=1,
        )
        return y

    def _extended(self, graph: Graph, new: str, name: str, named: bool, behind_a_past: bool, present: list[str]) -> str:
        """Keys or values with those of the past before them; noted in `present` as the cache keeps them."""
        half = self._export.cache == np.float16
        kept = graph.cast(new, np.float16) if half else new
        to = [f"present.{name}"] if named else []
        if behind_a_past:
            kept = graph.op("Concat", f"past_key_values.{name}", kept, to=to, axis=2)
        present.append(kept)
        return graph.cast(kept, np.float32) if half else kept

    def _angles(self, graph: Graph, columns: str) -> tuple[str, str]:
        """Cosines and sines of the positions: shape (batch, 1, tokens, half of a head)."""
        if self._export.positions == "given":
            places = graph.op("Unsqueeze", "position_ids", graph.ints(1, 3))
        else:
            places = graph.op("Unsqueeze", columns, graph.ints(0, 1, 3))
        angles = graph.op("Mul", graph.cast(places, np.float32), graph.value(self._speeds()))
        return graph.op("Cos", angles), graph.op("Sin", angles)

    def _speeds(self) -> NDArray[np.float64]:
        """How far each pair of numbers turns from one position to the next."""
        base = float(self._source.own("rope.freq_base", 10000.0))
        speeds: NDArray[np.float64] = base ** (-np.arange(0, self._size, 2) / self._size)
        return speeds

    def _rotate(self, graph: Graph, x: str, cos: str, sin: str, *, grouped: bool = False) -> str:
        """Turn pairs of numbers of each head: neighbours, or half a head apart. grouped: heads have two axes."""
        lead = (0, 0, 0, 0) if grouped else (0, 0, 0)
        halves = self._export.odd == "halves turned"
        shape, axis = ((2, self._size // 2), -2) if halves else ((self._size // 2, 2), -1)
        pairs = graph.op("Reshape", x, graph.ints(*lead, *shape))
        if grouped:
            cos, sin = (graph.op("Unsqueeze", value, graph.ints(1)) for value in (cos, sin))
        a, b = (graph.op("Gather", pairs, graph.value(at, np.int64), axis=axis) for at in (0, 1))
        turned = (
            graph.op("Sub", graph.op("Mul", a, cos), graph.op("Mul", b, sin)),
            graph.op("Add", graph.op("Mul", a, sin), graph.op("Mul", b, cos)),
        )
        joined = graph.op("Concat", *(graph.op("Unsqueeze", part, graph.ints(axis)) for part in turned), axis=axis)
        return graph.op("Reshape", joined, graph.ints(*lead, self._size))

    def _bias(self, graph: Graph, columns: str, total: str, *, causal: bool) -> str:
        """Minus a lot where a token must not look: shape (batch, 1, 1, tokens, total)."""
        seen = graph.op("Unsqueeze", graph.cast("attention_mask", np.bool_), graph.ints(1, 2, 3))
        if causal:
            everything = self._range(graph, graph.value(0, np.int64), total)
            before = graph.op("LessOrEqual", everything, graph.op("Unsqueeze", columns, graph.ints(1)))
            seen = graph.op("And", seen, before)
        if self._export.odd == "window":
            first = graph.op("Sub", graph.op("Unsqueeze", columns, graph.ints(1)), graph.value(WINDOW, np.int64))
            seen = graph.op("And", seen, graph.op("Less", first, self._range(graph, graph.value(0, np.int64), total)))
        return graph.op("Where", seen, graph.value(0.0), graph.value(np.finfo(np.float32).min))

    def _range(self, graph: Graph, start: str, end: str) -> str:
        return graph.op("Range", start, end, graph.value(1, np.int64))

    def _norm(self, graph: Graph, x: str, name: str, epsilon: float) -> str:
        mean = graph.op("ReduceMean", graph.op("Mul", x, x), axes=[-1])
        root = graph.op("Sqrt", graph.op("Add", mean, graph.value(epsilon)))
        return graph.op("Mul", graph.op("Div", x, root), graph.value(self._source.weight(name)))

    def _linear(self, graph: Graph, x: str, name: str) -> str:
        return graph.linear(x, self._source.weight(f"{name}.weight"))


def _bert(graph: Graph, source: Source) -> str:
    """The states of a text's tokens."""
    size = source.width // source.heads
    words, places, types = (source.weight(f"{name}.weight") for name in ("token_embd", "position_embd", "token_types"))
    columns = graph.op("Range", graph.value(0, np.int64), graph.size("input_ids", 1), graph.value(1, np.int64))
    x = graph.op("Gather", graph.value(words), "input_ids")
    x = graph.op("Add", x, graph.op("Gather", graph.value(places), columns))
    x = graph.op("Add", x, graph.op("Gather", graph.value(types), "token_type_ids"))
    seen = graph.op("Unsqueeze", graph.cast("attention_mask", np.bool_), graph.ints(1, 2))
    bias = graph.op("Where", seen, graph.value(0.0), graph.value(np.finfo(np.float32).min))

    def norm(x: str, name: str) -> str:
        scale, shift = (graph.value(source.weight(f"{name}.{kind}")) for kind in ("weight", "bias"))
        return graph.op("LayerNormalization", x, scale, shift, epsilon=1e-12)

    def linear(x: str, name: str) -> str:
        return graph.linear(x, source.weight(f"{name}.weight"), source.weight(f"{name}.bias"))

    x = norm(x, "token_embd_norm")
    for layer in range(source.layers):
        block = f"blk.{layer}"
        q, k, v = (graph.heads(linear(x, f"{block}.attn_{name}"), source.heads, size) for name in "qkv")
        scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = graph.op("Add", graph.op("Mul", scores, graph.value(size**-0.5)), bias)
        y = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
        y = graph.op("Reshape", graph.op("Transpose", y, perm=[0, 2, 1, 3]), graph.ints(0, 0, source.width))
        x = norm(graph.op("Add", x, linear(y, f"{block}.attn_output")), f"{block}.attn_output_norm")
        up = linear(x, f"{block}.ffn_up")
        half = graph.op("Mul", up, graph.value(0.5))
        erf = graph.op("Erf", graph.op("Mul", up, graph.value(0.5**0.5)))
        hidden = graph.op("Mul", half, graph.op("Add", erf, graph.value(1.0)))
        x = norm(graph.op("Add", x, linear(hidden, f"{block}.ffn_down")), f"{block}.layer_output_norm")
    return x


def _byte_level(source: Source) -> Tokenizer:
    merges = [tuple(pair.split(" ")) for pair in source.get("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({text: number for number, text in enumerate(source.tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _add_control_tokens(tokenizer, source)
    return tokenizer


def _word_piece(source: Source) -> Tokenizer:
    special = {text for text, _ in source.control_tokens()}

    def spelled(text: str) -> str:
        if text in special:
            return text
        return text.removeprefix(_WORD) if text.startswith(_WORD) else f"##{text}"

    vocabulary = {spelled(text): number for number, text in enumerate(source.tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.decoder = decoders.WordPiece()
    _add_control_tokens(tokenizer, source)
    tokenizer.enable_truncation(8)  # as many files have it, from when their model was trained
    tokenizer.enable_padding(length=8)
    return tokenizer


def _add_control_tokens(tokenizer: Tokenizer, source: Source) -> None:
    for text, special in source.control_tokens():
        token = AddedToken(text, special=special, normalized=False)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])


def _write(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
