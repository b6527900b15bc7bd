"""Turn build/model.pt + build/tokenizer.json into what the runtime serves.

    python export.py --build build --out dist

dist/inferno-tiny-Q8_0.gguf, dist/inferno-tiny-F16.gguf     llama architecture, ChatML template inside
dist/onnx/{model.onnx,config.json,tokenizer.json,tokenizer_config.json}   text-generation-with-past layout:
    inputs  input_ids [batch, seq], attention_mask [batch, past+seq], position_ids [batch, seq],
            past_key_values.{i}.{key,value} [batch, kv_heads, past, head_dim]
    outputs logits [batch, seq, vocab], present.{i}.{key,value} [batch, kv_heads, past+seq, head_dim]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import corpus
import gguf
import torch
from torch import nn
from train import SPECIAL, Config, Llama, rotate

NAME = "inferno-tiny"


def load(build: Path) -> tuple[Llama, dict]:
    saved = torch.load(build / "model.pt", weights_only=True)
    model = Llama(Config(**saved["config"]))
    model.load_state_dict(saved["state"])
    return model.eval(), json.loads((build / "tokenizer.json").read_text())


def vocabulary(tok: dict) -> list[str]:
    vocab = dict(tok["model"]["vocab"])
    for t in tok["added_tokens"]:
        vocab[t["content"]] = t["id"]
    return [t for t, _ in sorted(vocab.items(), key=lambda kv: kv[1])]


def write_gguf(model: Llama, tok: dict, path: Path, qtype: gguf.GGMLQuantizationType) -> None:
    c = model.cfg
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name(NAME)
    w.add_description("A tiny chat model trained on synthetic text, for demos and tests")
    w.add_size_label("5M")
    w.add_license("apache-2.0")
    w.add_file_type(
        {
            gguf.GGMLQuantizationType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
            gguf.GGMLQuantizationType.F16: gguf.LlamaFileType.MOSTLY_F16,
        }[qtype]
    )
    w.add_context_length(c.context)
    w.add_embedding_length(c.dim)
    w.add_block_count(c.layers)
    w.add_feed_forward_length(c.ffn)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_rope_dimension_count(c.head_dim)
    w.add_rope_freq_base(c.rope_theta)
    w.add_layer_norm_rms_eps(c.eps)
    w.add_vocab_size(c.vocab_size)
    tokens = vocabulary(tok)
    assert len(tokens) == c.vocab_size
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    # control tokens are hidden in the text; the tool tags are shown, so they are user-defined
    control = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    w.add_token_types(
        [
            gguf.TokenType.CONTROL
            if t in control
            else gguf.TokenType.USER_DEFINED
            if t in SPECIAL
            else gguf.TokenType.NORMAL
            for t in tokens
        ]
    )
    w.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in tok["model"]["merges"]])
    w.add_bos_token_id(tokens.index("<|endoftext|>"))
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_pad_token_id(tokens.index("<|endoftext|>"))
    w.add_add_bos_token(False)
    w.add_chat_template(corpus.CHAT_TEMPLATE)

    def put(name: str, t: torch.Tensor) -> None:
        a = t.detach().float().numpy()
        if a.ndim == 1:
            w.add_tensor(name, a)
        else:
            w.add_tensor(name, gguf.quants.quantize(a, qtype), raw_dtype=qtype)

    put("token_embd.weight", model.embed.weight)
    put("output_norm.weight", model.norm.weight)
    for i, b in enumerate(model.blocks):
        for ours, theirs in {
            "attn_norm": "attn_norm",
            "q": "attn_q",
            "k": "attn_k",
            "v": "attn_v",
            "o": "attn_output",
            "ffn_norm": "ffn_norm",
            "gate": "ffn_gate",
            "up": "ffn_up",
            "down": "ffn_down",
        }.items():
            put(f"blk.{i}.{theirs}.weight", getattr(b, ours).weight)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


class WithPast(nn.Module):
    """The same network with an explicit cache, as exported to ONNX."""

    def __init__(self, model: Llama):
        super().__init__()
        self.m = model
        c = model.cfg
        self.register_buffer("inv", c.rope_theta ** (-torch.arange(0, c.head_dim, 2, dtype=torch.float32) / c.head_dim))

    def norm(self, layer: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
        return layer.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.m.cfg.eps))

    def forward(self, input_ids, attention_mask, position_ids, *past):
        c = self.m.cfg
        b, s = input_ids.shape
        total = attention_mask.shape[1]
        ang = position_ids[:, None, :, None].float() * self.inv
        cos, sin = ang.cos(), ang.sin()
        rows = torch.arange(s, device=input_ids.device)[:, None] + (total - s)
        causal = torch.arange(total, device=input_ids.device)[None] <= rows
        keep = causal[None, None] & (attention_mask[:, None, None, :] != 0)
        bias = torch.where(keep, 0.0, torch.finfo(torch.float32).min)
        x = self.m.embed(input_ids)
        present = []
        for i, blk in enumerate(self.m.blocks):
            h = self.norm(blk.attn_norm, x)
            q = rotate(blk.q(h).view(b, s, c.heads, c.head_dim).transpose(1, 2), cos, sin)
            k = rotate(blk.k(h).view(b, s, c.kv_heads, c.head_dim).transpose(1, 2), cos, sin)
            v = blk.v(h).view(b, s, c.kv_heads, c.head_dim).transpose(1, 2)
            k, v = torch.cat((past[2 * i], k), 2), torch.cat((past[2 * i + 1], v), 2)
            present += [k, v]
            g = c.heads // c.kv_heads
            kk = k[:, :, None].expand(b, c.kv_heads, g, total, c.head_dim).reshape(b, c.heads, total, c.head_dim)
            vv = v[:, :, None].expand(b, c.kv_heads, g, total, c.head_dim).reshape(b, c.heads, total, c.head_dim)
            att = (q @ kk.transpose(-1, -2)) * c.head_dim**-0.5 + bias
            y = (att.softmax(-1) @ vv).transpose(1, 2).reshape(b, s, c.dim)
            x = x + blk.o(y)
            h = self.norm(blk.ffn_norm, x)
            x = x + blk.down(torch.nn.functional.silu(blk.gate(h)) * blk.up(h))
        logits = self.norm(self.m.norm, x) @ self.m.embed.weight.T
        return logits, *present


def write_onnx(model: Llama, build: Path, out: Path) -> None:
    c = model.cfg
    out.mkdir(parents=True, exist_ok=True)
    b, p, s = 2, 3, 4
    past = [torch.randn(b, c.kv_heads, p, c.head_dim) for _ in range(2 * c.layers)]
    names = [
        f"{k}.{i}.{kv}" for k in ("past_key_values", "present") for i in range(c.layers) for kv in ("key", "value")
    ]
    pn, on = names[: 2 * c.layers], names[2 * c.layers :]
    axes = {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: "total"},
        "position_ids": {0: "batch", 1: "sequence"},
        "logits": {0: "batch", 1: "sequence"},
    }
    axes |= {n: {0: "batch", 2: "past"} for n in pn} | {n: {0: "batch", 2: "total"} for n in on}
    torch.onnx.export(
        WithPast(model),
        (
            torch.randint(0, c.vocab_size, (b, s)),
            torch.ones(b, p + s, dtype=torch.long),
            torch.arange(p, p + s).expand(b, s),
            *past,
        ),
        str(out / "model.onnx"),
        input_names=["input_ids", "attention_mask", "position_ids", *pn],
        output_names=["logits", *on],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    shutil.copy(build / "tokenizer.json", out / "tokenizer.json")
    tok = json.loads((build / "tokenizer.json").read_text())
    tokens = vocabulary(tok)
    (out / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": c.dim,
                "intermediate_size": c.ffn,
                "num_hidden_layers": c.layers,
                "num_attention_heads": c.heads,
                "num_key_value_heads": c.kv_heads,
                "head_dim": c.head_dim,
                "max_position_embeddings": c.context,
                "rms_norm_eps": c.eps,
                "rope_theta": c.rope_theta,
                "vocab_size": c.vocab_size,
                "tie_word_embeddings": True,
                "bos_token_id": tokens.index("<|endoftext|>"),
                "eos_token_id": tokens.index("<|im_end|>"),
                "pad_token_id": tokens.index("<|endoftext|>"),
                "torch_dtype": "float32",
            },
            indent=2,
        )
        + "\n"
    )
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|endoftext|>",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "add_bos_token": False,
                "clean_up_tokenization_spaces": False,
                "model_max_length": c.context,
                "chat_template": corpus.CHAT_TEMPLATE,
            },
            indent=2,
        )
        + "\n"
    )


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--build", type=Path, default=Path("build"))
    ap.add_argument("--out", type=Path, default=Path("dist"))
    a = ap.parse_args()
    a.out.mkdir(exist_ok=True)
    model, tok = load(a.build)
    write_gguf(model, tok, a.out / f"{NAME}-Q8_0.gguf", gguf.GGMLQuantizationType.Q8_0)
    write_gguf(model, tok, a.out / f"{NAME}-F16.gguf", gguf.GGMLQuantizationType.F16)
    write_onnx(model, a.build, a.out / "onnx")
    for f in sorted(a.out.rglob("*")):
        if f.is_file():
            print(f"{f.stat().st_size / 1e6:8.2f} MB  {f.relative_to(a.out)}")


if __name__ == "__main__":
    main()
