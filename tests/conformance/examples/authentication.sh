curl -H "Authorization: Bearer YOUR_API_KEY" \
  http://localhost:8000/v1/chat/completions
