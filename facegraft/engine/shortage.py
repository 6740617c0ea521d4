"""What a machine says when it refuses a thread, a process, a file or memory, and what to do then."""

from __future__ import annotations

_SAID = {
    "no further thread or process can be started; raise the limits on processes and memory (ulimit -u, ulimit -v)": (
        "can't start new thread",
        "launch worker thread",
        "Resource temporarily unavailable",
    ),
    "too many open files; raise the limit (ulimit -n 1024)": ("Too many open files",),
    "there is not enough memory; raise the limit (ulimit -v), or use fewer --workers": (
        "Cannot allocate memory",
        "MemoryError",
        "failed to map segment",
    ),
}
NO_THREADS = next(iter(_SAID))


def shortage(text: str) -> str | None:
    """The cause and the remedy, in one line, where a message of Python, a library or the system tells of a limit; else None."""
    return next((meaning for meaning, said in _SAID.items() if any(word in text for word in said)), None)
