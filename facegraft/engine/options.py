"""Options of running: they do not change the output."""

from __future__ import annotations

from dataclasses import dataclass

from facegraft.engine.errors import OptionError


@dataclass(frozen=True)
class Tls:
    """PEM files for a scheduler at tls://…: the signing authority's certificate, the user's certificate, and its key, if that is not in
    the certificate's file."""

    ca: str
    cert: str
    key: str | None = None


@dataclass(frozen=True)
class EngineOptions:
    """workers: processes of the local cluster (None: one per core). scheduler: None for a local cluster, "sync" for this process
    without any protection, else the address or scheduler file of a Dask cluster. max_rejects: the share of the planned items that may
    be rejected; unless it is 0, one reject is always accepted. item_timeout_s, item_memory_gb (10^9 bytes): limits of one item.
    progress: show it on stderr. tls: the files for a scheduler at tls://…; None leaves them to Dask's own configuration.
    dashboard: address of the local cluster's dashboard, e.g. "127.0.0.1:8787".
    """

    workers: int | None = None
    scheduler: str | None = None
    max_rejects: float = 0.02
    item_timeout_s: float = 300.0
    item_memory_gb: float = 6.0
    progress: bool = True
    dashboard: str | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.tls is not None and self.scheduler in (None, "sync"):
            raise OptionError(
                "the TLS files are for a Dask scheduler: give --scheduler tls://HOST:PORT too, or leave them out"
            )
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"--workers must be at least 1, not {self.workers}")
        if not 0 <= self.max_rejects <= 1:
            raise OptionError(f"--max-rejects is a share between 0 and 1 (0.02 is 2 %), not {self.max_rejects:g}")
        if not self.item_timeout_s > 0:
            raise OptionError(f"the time limit of an item must be positive, not {self.item_timeout_s:g} s")
        if not self.item_memory_gb >= 0.25:
            raise OptionError(
                f"the memory limit of an item must be at least 0.25 GB (its libraries need that), not {self.item_memory_gb:g}"
            )

    def reject_limit(self, planned: int) -> int:
        """Number of accepted rejects: max_rejects of the planned items, rounded down, but at least one (a single bad mesh does not stop
        a run of ten items), or 0 if max_rejects is 0."""
        return max(1, int(self.max_rejects * planned + 1e-9)) if self.max_rejects > 0 else 0
