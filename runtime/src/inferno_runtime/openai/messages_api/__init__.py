"""Anthropic's Messages API: its wire types, and their conversion to and from a chat."""
