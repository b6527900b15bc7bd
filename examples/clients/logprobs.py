"""Shows how sure the model is of each word, and how likely it holds given endings of a text to be.

Usage: python logprobs.py [BASE_URL]; pip install openai
"""

import math
import sys

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1", api_key="unused")
model = client.models.list().data[0].id

answer = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    temperature=0,
    logprobs=True,
    top_logprobs=2,
)
for token in answer.choices[0].logprobs.content:
    others = ", ".join(f"{other.token!r} {math.exp(other.logprob):.0%}" for other in token.top_logprobs)
    print(f"{token.token!r}: {others}")

prompt = "The capital of France is"
for ending in (" Paris.", " Rome."):
    scored = client.completions.create(model=model, prompt=prompt + ending, max_tokens=1, echo=True, logprobs=0)
    told = scored.choices[0].logprobs
    own = [
        logprob
        for logprob, offset in zip(told.token_logprobs, told.text_offset, strict=True)
        if len(prompt) <= offset < len(prompt + ending)
    ]
    print(f"{ending!r}: {math.exp(sum(own)):.2%}")
