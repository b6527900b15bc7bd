"""Train the tiny bundled model from the synthetic corpus, on a CPU.

    python train.py --minutes 40 --out build/

Writes build/tokenizer.json and build/model.pt; export.py turns both into GGUF and ONNX.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import corpus
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
# the pre-tokenizer that llama.cpp calls "qwen2": digits one by one
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass
class Config:
    vocab_size: int = 2560
    dim: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 768
    context: int = 1024
    rope_theta: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def train_tokenizer(vocab_size: int, docs: int = 20000) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(itertools.islice(corpus.documents(0), docs), trainer)
    return tok


def rope_tables(cfg: Config, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    inv = cfg.rope_theta ** (-torch.arange(0, cfg.head_dim, 2, dtype=torch.float32) / cfg.head_dim)
    ang = torch.arange(length, dtype=torch.float32)[:, None] * inv[None]
    return ang.cos(), ang.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Interleaved rotary embedding, as llama.cpp's llama architecture has it. x: [B, H, T, D]."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Block(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg = cfg
        kv = cfg.kv_heads * cfg.head_dim
        self.attn_norm, self.ffn_norm = nn.RMSNorm(cfg.dim, cfg.eps), nn.RMSNorm(cfg.dim, cfg.eps)
        self.q, self.k, self.v = (
            nn.Linear(cfg.dim, cfg.dim, bias=False),
            nn.Linear(cfg.dim, kv, bias=False),
            nn.Linear(cfg.dim, kv, bias=False),
        )
        self.o = nn.Linear(cfg.dim, cfg.dim, bias=False)
        self.gate, self.up, self.down = (
            nn.Linear(cfg.dim, cfg.ffn, bias=False),
            nn.Linear(cfg.dim, cfg.ffn, bias=False),
            nn.Linear(cfg.ffn, cfg.dim, bias=False),
        )

    def attention(self, x, cos, sin, mask=None, past=None):
        b, t, _ = x.shape
        c = self.cfg
        q = rotate(self.q(x).view(b, t, c.heads, c.head_dim).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2), cos, sin)
        v = self.v(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        present = (k, v)
        g = c.heads // c.kv_heads
        kk, vv = k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
        y = F.scaled_dot_product_attention(q, kk, vv, attn_mask=mask, is_causal=mask is None)
        return self.o(y.transpose(1, 2).reshape(b, t, c.dim)), present

    def forward(self, x, cos, sin, mask=None, past=None):
        y, present = self.attention(self.attn_norm(x), cos, sin, mask, past)
        x = x + y
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h)), present


class Llama(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.vocab_size, cfg.dim)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = nn.RMSNorm(cfg.dim, cfg.eps)
        for n, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(
                    p, std=0.02 / (math.sqrt(2 * cfg.layers) if n.endswith(("o.weight", "down.weight")) else 1)
                )

    def forward(self, ids):
        cos, sin = rope_tables(self.cfg, ids.shape[1])
        x = self.embed(ids)
        for blk in self.blocks:
            x, _ = blk(x, cos.to(x.dtype), sin.to(x.dtype))
        return F.linear(self.norm(x), self.embed.weight)


def batches(tok: Tokenizer, cfg: Config, batch: int, seed: int):
    end = tok.token_to_id("<|endoftext|>")
    buf: list[int] = []
    docs = corpus.documents(seed)
    need = batch * (cfg.context + 1)
    while True:
        while len(buf) < need:
            for e in tok.encode_batch(list(itertools.islice(docs, 256)), add_special_tokens=False):
                buf += [*e.ids, end]
        yield torch.from_numpy(np.array(buf[:need], dtype=np.int64)).view(batch, cfg.context + 1)
        buf = buf[need:]


def generate(model: Llama, tok: Tokenizer, prompt: str, limit: int = 80) -> str:
    ids = tok.encode(prompt, add_special_tokens=False).ids
    start = len(ids)
    stop = {tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")}
    with torch.no_grad():
        for _ in range(limit):
            nxt = int(model(torch.tensor([ids]))[0, -1].argmax())
            if nxt in stop:
                break
            ids.append(nxt)
    return tok.decode(ids[start:], skip_special_tokens=False)


PROBES = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Count from 7 to 15."}],
    [{"role": "user", "content": "Repeat after me: blue lamp fox seven"}],
    [
        {"role": "user", "content": "My name is Zoe."},
        {"role": "assistant", "content": "Nice to meet you, Zoe!"},
        {"role": "user", "content": "What is my name?"},
    ],
    [{"role": "system", "content": corpus.PIRATE}, {"role": "user", "content": "What is 6 + 7?"}],
    [
        {
            "role": "user",
            "content": "The code of the lamp is 41. The code of the fox is 77. What is the code of the fox?",
        }
    ],
]


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--minutes", type=float, default=40)
    ap.add_argument("--batch", type=int, default=12)
    ap.add_argument("--lr", type=float, default=0.02)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--init", type=Path, help="start from this model.pt (its tokenizer.json must lie in --out)")
    ap.add_argument("--out", type=Path, default=Path("build"))
    a = ap.parse_args()
    a.out.mkdir(exist_ok=True)
    torch.manual_seed(a.seed)
    cfg = Config()
    if a.init:
        tok = Tokenizer.from_file(str(a.out / "tokenizer.json"))
    else:
        tok = train_tokenizer(cfg.vocab_size)
        tok.save(str(a.out / "tokenizer.json"))
    cfg.vocab_size = tok.get_vocab_size()
    model = Llama(cfg)
    if a.init:
        model.load_state_dict(torch.load(a.init, weights_only=True)["state"])
    print("parameters", sum(p.numel() for p in model.parameters()), "vocab", cfg.vocab_size, flush=True)
    mats = [p for n, p in model.named_parameters() if p.dim() == 2 and not n.startswith("embed")]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or n.startswith("embed")]
    opts = [
        torch.optim.Muon(mats, lr=a.lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    t0, step, seen, ema = time.time(), 0, 0, None
    for b in batches(tok, cfg, a.batch, a.seed):
        done = (time.time() - t0) / (a.minutes * 60)
        if done >= 1:
            break
        scale = min(1.0, step / 50) * (1.0 if done < 0.3 else 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) + 0.01)
        for o, lrs in zip(opts, base):
            for g, lr in zip(o.param_groups, lrs):
                g["lr"] = lr * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(b[:, :-1])
        loss = F.cross_entropy(logits.float().view(-1, cfg.vocab_size), b[:, 1:].reshape(-1))
        for o in opts:
            o.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
        step += 1
        seen += b.shape[0] * cfg.context
        ema = loss.item() if ema is None else 0.95 * ema + 0.05 * loss.item()
        if step % 25 == 0:
            print(
                f"step {step} loss {ema:.4f} {seen / 1e6:.1f}M tokens {seen / (time.time() - t0):.0f} tok/s {100 * done:.0f}%",
                flush=True,
            )
        if step % 100 == 0:
            model.eval()
            for p in PROBES:
                print("   ", repr(generate(model, tok, corpus.render(p, generation=True))), flush=True)
            model.train()
            torch.save({"config": asdict(cfg), "state": model.state_dict()}, a.out / "model.pt")
    torch.save({"config": asdict(cfg), "state": model.state_dict()}, a.out / "model.pt")
    for p in PROBES:
        print(repr(generate(model, tok, corpus.render(p, generation=True))), flush=True)


if __name__ == "__main__":
    main()
