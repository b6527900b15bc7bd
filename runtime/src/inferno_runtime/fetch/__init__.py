"""Brings a model's files from where they are into a cache: resumed, verified, and once for all who share it."""
