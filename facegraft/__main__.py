"""`python -m facegraft`."""

from facegraft.cli import main

main()
