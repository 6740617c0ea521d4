"""A connection to a Dask scheduler that somebody else started: by address or scheduler file, with TLS if required."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

from facegraft.engine.errors import EngineError, OptionError
from facegraft.engine.options import Tls

CONNECT_S = 30.0


def connect(scheduler: str, tls: Tls | None) -> Any:
    """A `distributed.Client`. Raises OptionError for an impossible address or unusable TLS files, EngineError when no scheduler answers."""
    address = scheduler_address(scheduler, tls is not None)
    security = _security(tls)
    if address.startswith("tls://"):
        _check_certificates(address, security)
    elif tls is not None:
        raise OptionError(f"the TLS files are for a scheduler at tls://…, and this one is at {address}; leave them out")
    try:
        return dask_module("distributed").Client(address, timeout=CONNECT_S, set_as_default=False, security=security)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); check {_remedy(address)}"
        ) from error


def scheduler_address(scheduler: str, encrypted: bool) -> str:
    """The address that --scheduler names, as protocol://host:port. `encrypted`: what HOST:PORT alone stands for."""
    if Path(scheduler).is_file():
        try:
            address = json.loads(Path(scheduler).read_bytes())["address"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise OptionError(
                f"--scheduler {scheduler} is no scheduler file; give the one that `dask scheduler --scheduler-file` writes"
            ) from error
        return str(address)
    if "://" in scheduler:
        return scheduler
    if re.fullmatch(r"[\w.-]+:\d+", scheduler):
        return f"{'tls' if encrypted else 'tcp'}://{scheduler}"
    raise OptionError(
        f"--scheduler {scheduler!r} is neither an address (tcp://host:8786), nor an existing scheduler file, nor 'sync'"
    )


def dask_module(name: str) -> Any:
    """Import Dask on first use: neither a worker's child nor `facegraft --help` should wait for it."""
    return importlib.import_module(name)


def _security(tls: Tls | None) -> Any:
    security = dask_module("distributed").Security
    if tls is None:
        # From Dask's configuration files and DASK_DISTRIBUTED__COMM__TLS__….
        return security()
    return security(tls_ca_file=tls.ca, tls_client_cert=tls.cert, tls_client_key=tls.key, require_encryption=True)


def _check_certificates(address: str, security: Any) -> None:
    try:
        context = security.get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:
        raise OptionError(
            f"the TLS files cannot be used ({error}); --tls-ca, --tls-cert and --tls-key are PEM files, the key is the certificate's"
        ) from error
    if context is None:
        raise OptionError(
            f"the scheduler at {address} asks for certificates; give --tls-ca, --tls-cert and --tls-key, or name them in Dask's "
            "configuration (distributed.comm.tls.ca-file, …client.cert, …client.key)"
        )


def _remedy(address: str) -> str:
    if address.startswith("tls://"):
        return "the address, that it is running, and that its certificate and yours are signed by the authority of --tls-ca"
    return "the address and that it is running (one that uses TLS is at tls://…)"
