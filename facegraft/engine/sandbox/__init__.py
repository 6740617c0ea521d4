"""Run items in a child process, which may crash, hang or use too much memory without harm to the run, and report the cause."""

from facegraft.engine.sandbox.runners import InProcessRunner, ItemRunner, Limits, Sandbox, thread_sandbox

__all__ = ["InProcessRunner", "ItemRunner", "Limits", "Sandbox", "thread_sandbox"]
