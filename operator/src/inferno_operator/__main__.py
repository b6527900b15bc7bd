"""``python -m inferno_operator``."""

from inferno_operator.cli import main

main()
