"""`python -m inferno_runtime` is `inferno`."""

from inferno_runtime.cli import main

main()
