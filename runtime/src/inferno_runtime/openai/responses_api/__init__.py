"""OpenAI's Responses API: its wire types, and their conversion to and from a chat."""
