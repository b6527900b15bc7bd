"""What is wrong with a model."""


class ModelError(Exception):
    """A model that cannot be served; the message is one line that says which file and why."""
