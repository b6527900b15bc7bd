curl http://localhost:8000/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{
    "model": "llama-7b",
    "messages": [
      {"role": "user", "content": "Write a haiku"}
    ],
    "stream": true
  }' | jq -R 'fromjson?'
