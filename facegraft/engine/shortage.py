"""What a machine says when it refuses a thread, a process, a file or memory, and what to do then."""

from __future__ import annotations

_SAID = {
    ("new thread", "worker thread", "Resource temporarily unavailable"): (
        "no further thread or process can be started; raise the limits on processes and memory (ulimit -u, ulimit -v)"
    ),
    ("Too many open files",): "too many open files; raise the limit (ulimit -n 1024)",
    (
        "Cannot allocate memory",
        "MemoryError",
    ): "there is not enough memory; raise the limit (ulimit -v), or use fewer --workers",
}
NO_THREADS = next(iter(_SAID.values()))


def shortage(text: str) -> str | None:
    """The cause and the remedy, in one line, where a message of Python, a library or the system tells of a limit; else None."""
    return next((meaning for said, meaning in _SAID.items() if any(word in text for word in said)), None)
