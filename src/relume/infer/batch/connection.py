"""Ray, connected and silent."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from relume.core.errors import MissingDependencyError, RelumeError
from relume.core.silence import silent_stderr

LOCAL = "local"
"""The address that means: start a cluster on this machine for the time of the batch."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give Ray, connected to a cluster and silent; what it would print is in its own logs.

    Raises:
        MissingDependencyError: it is not installed.
        RelumeError: there is no such cluster.
    """
    # Read when Ray is imported: it prints what happens on the nodes to standard output otherwise.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise MissingDependencyError("Ray", "working on a cluster", "ray") from None
    check_reachable(address)
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 << 20}
    try:
        with silent_stderr():
            ray.init(
                address=address,
                logging_level=logging.FATAL,
                log_to_driver=False,
                **(here if address == LOCAL else {}),
            )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise _unreachable(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Look whether somebody listens there, as Ray itself tries for minutes.

    Raises:
        RelumeError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> RelumeError:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return RelumeError(
        f"no Ray cluster can be reached at {address!r} ({said}); start one with `ray start --head`, "
        f"or use {LOCAL!r}"
    )
