"""What holds for all tests."""

from hypothesis import settings

# None fails by how long it took.
settings.register_profile("whatever the machine does", deadline=None)
settings.load_profile("whatever the machine does")
