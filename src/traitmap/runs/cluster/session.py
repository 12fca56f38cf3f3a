"""A Ray session: of an existing cluster, or one on this machine that nobody else can reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from traitmap.errors import RunError

# Ray takes a loopback address for its servers only where clusters are switched off, by this name, when it is
# imported; `_node_ip_address="127.0.0.1"` is replaced by the machine's address without a word.
_NO_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_MISSING = "the ray executor needs Ray: pip install 'traitmap[ray]'; or run with --executor local."


def import_ray() -> Any:
    """The ray module, which reports nothing to anybody. RunError where it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise RunError(_MISSING) from None
    return ray


@contextmanager
def ray_session(address: str | None = None, *, cpus: int | None = None) -> Iterator[Any]:
    """Be connected to Ray. A session that was there before is used and left as it is.

    address: of a cluster, ``host:port``, or ``auto`` for the one that this machine belongs to; None starts
    Ray on this machine alone, bound to the loopback address, without a dashboard, and ends it afterwards.
    cpus: cores that it may use, by default all. RunError where the cluster cannot be reached.
    """
    if address is None:
        os.environ.setdefault(_NO_CLUSTER, "0")
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "traitmap"}
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
            _only_here(ray)
        else:
            _reachable(address)
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        ray.shutdown()
        place = f"Ray cluster {address!r}" if address else "Ray on this machine"
        raise RunError(
            f"{place}: cannot be used ({' '.join(str(error).split())[:300]}). Start one with `ray start "
            "--head`, give --address host:port, or leave --address out."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reachable(address: str) -> None:
    """Ray itself tries for minutes and then ends the process, so look first."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "//" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _only_here(ray: Any) -> None:
    found = {node["NodeManagerAddress"] for node in ray.nodes()}
    if found - {"127.0.0.1", "::1"}:
        ray.shutdown()
        raise RunError(
            f"Ray would listen on {', '.join(sorted(found))}, where others can reach it, since it was "
            f"imported before; set {_NO_CLUSTER}=0 before that, or start Ray yourself and give its address."
        )
