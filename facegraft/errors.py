"""The base of every error that a user is meant to read."""


def printable(value: object, longest: int = 80) -> str:
    """What a stranger's file says, fit to be part of a message: one line, short, without control characters."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= longest else text[:longest] + "…"


class FacegraftError(Exception):
    """One clear line: what is wrong, where, and what to do.

    The command line prints the message and exits; anything that is not a FacegraftError is a defect of ours
    and keeps its traceback.
    `exit_code` is what the command exits with: 1 for a failed run, 2 for wrong usage.
    """

    exit_code = 1
