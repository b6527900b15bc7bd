curl http://localhost:8000/v1/embeddings \
  -H "Content-Type: application/json" \
  -d '{
    "model": "text-embedding-ada-002",
    "input": [
      "Embedding 1",
      "Embedding 2",
      "Embedding 3"
    ]
  }'
