"""Items in a child process that may crash, hang or eat memory without harm to the run, and fair reasons for what they died of."""

from facegraft.engine.sandbox.runners import InProcessRunner, ItemRunner, Limits, Sandbox, thread_sandbox

__all__ = ["InProcessRunner", "ItemRunner", "Limits", "Sandbox", "thread_sandbox"]
