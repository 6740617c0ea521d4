"""Count the memory of a computation before it runs: on torch's meta device, where tensors have shapes and no contents."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
Module = TypeVar("Module", bound=nn.Module)


class LiveBytes(TorchDispatchMode):
    """Within this context, `now` and `peak` count the bytes of the tensors that operations have made and that are still alive.

    A view costs nothing. The allocator's rounding and the buffers that a kernel takes for itself are not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._held:
            return
        self._held[key] = storage.nbytes()
        self.now += self._held[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._held.pop(key)


def on_meta(module: Module) -> Module:
    """A copy of a module without contents."""
    return copy.deepcopy(module).to(META)


def peak_bytes(action: Callable[[], object]) -> int:
    """The largest number of bytes that an action on the meta device holds at once, of what it makes itself.

    Raises NotImplementedError or RuntimeError for an action that reads a value, as `.item()` does.
    """
    with LiveBytes() as live:
        action()
    return live.peak
