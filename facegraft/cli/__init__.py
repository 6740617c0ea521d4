"""The command line. Every command is thin: it reads options, calls one function, and prints what was written where.

Heavy packages are imported only when a command runs, so that `facegraft --help` is fast.
"""

from facegraft.cli.main import main

__all__ = ["main"]
