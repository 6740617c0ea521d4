"""The command line. Every command is thin: it reads options, calls one function, says what was written where.

Nothing heavy is imported before a command runs, so that `facegraft --help` answers at once.
"""

from facegraft.cli.main import main

__all__ = ["main"]
