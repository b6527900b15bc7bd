"""Finds the texts that are nearest to a question. Usage: python embeddings.py [BASE_URL]; pip install openai

It needs a model that embeds: inferno serve all-MiniLM-L6-v2.gguf
"""

import sys
from operator import mul

from openai import OpenAI

QUESTION = "Who is making music?"
TEXTS = [
    "A man plays the guitar.",
    "The stock market fell today.",
    "She sings in a choir.",
    "Bread needs flour and water.",
]

client = OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1", api_key="unused")
model = client.models.list().data[0].id
answer = client.embeddings.create(model=model, input=[QUESTION, *TEXTS])
question, *vectors = (item.embedding for item in answer.data)

# Vectors have length 1, so that the sum of their products is the cosine of the angle between them.
scores = [sum(map(mul, question, vector)) for vector in vectors]
for score, text in sorted(zip(scores, TEXTS, strict=True), reverse=True):
    print(f"{score:.3f}  {text}")
