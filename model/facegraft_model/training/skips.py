"""Steps that were skipped because their gradient was not finite: one bad batch must not end a run of days."""

from __future__ import annotations

import torch
from torch import Tensor

from facegraft_model.errors import ModelError

MOST_IN_A_ROW = 20
"""As many skipped steps one after the other are no accident: the weights themselves have gone astray."""


class Skips:
    """Counts the skipped steps of a run on its device, so that no step waits for it. counts: as `read` returned them."""

    def __init__(self, device: torch.device, counts: tuple[int, int] = (0, 0)) -> None:
        self._counts = torch.tensor(counts, dtype=torch.int64, device=device)
        self._noted = counts[0]

    def add(self, grad_norm: Tensor) -> None:
        """Count a step by the norm of its gradient, a scalar."""
        bad = (~torch.isfinite(grad_norm)).long()
        all_of_them, in_a_row = self._counts
        self._counts = torch.stack([all_of_them + bad, (in_a_row + 1) * bad])

    def read(self) -> tuple[int, int]:
        """Skipped steps in all, and the last ones in a row. Waits for the device."""
        all_of_them, in_a_row = self._counts.tolist()
        return all_of_them, in_a_row

    def checked(self, step: int) -> tuple[int, int]:
        """Skipped steps in all, and how many of them no earlier call has told. step: finished steps.

        Raises ModelError where too many were skipped in a row.
        """
        count, in_a_row = self.read()
        if in_a_row >= MOST_IN_A_ROW:
            raise ModelError(
                f"the gradient was not finite in the last {in_a_row} steps, up to step {step}; they were skipped, and the checkpoints "
                "before are kept. Lower train.lr, or set train.clip_grad (such as 1e3), in another folder"
            )
        new, self._noted = count - self._noted, count
        return count, new
