#!/bin/sh
# The models, a chat, and a text as OpenAI's events and as named events. Usage: curl.sh [BASE_URL [MODEL]]
set -eu
url=${1:-http://127.0.0.1:8000/v1}
model=${2:-inferno-tiny}

curl -sS --fail-with-body "$url/models"
echo

curl -sS --fail-with-body "$url/chat/completions" -H 'Content-Type: application/json' -d '{
  "model": "'"$model"'", "temperature": 0, "messages": [{"role": "user", "content": "What is the capital of France?"}]
}'
echo

# -N shows each event as it comes.
curl -sSN --fail-with-body "$url/completions" -H 'Content-Type: application/json' -d '{
  "model": "'"$model"'", "prompt": "Once upon a time", "max_tokens": 16, "stream": true
}'

curl -sSN --fail-with-body --get "$url/stream/sse" --data-urlencode "model=$model" \
    --data-urlencode 'prompt=Once upon a time' -d max_tokens=16 -d temperature=0
