"""OpenAI's wire types, and their conversion to and from what the engine understands."""
