"""Ray, which is an optional package, and the cluster that ``--engine ray`` uses."""

import logging
import os
from typing import Any

from .errors import UserError

# Keeps the log of a lost machine off the screen. Ray reads this variable when it is imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")

try:
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
except ImportError:
    raise UserError("--engine ray: Ray is missing; pip install ray==2.60.0") from None

__all__ = ["OutOfMemoryError", "RayError", "RayTaskError", "connect", "ray"]


def connect() -> None:
    """Join the cluster at ``RAY_ADDRESS``, or one that already runs on this machine.

    Without either, start a cluster that has only this machine.

    Raises:
        UserError: there is no cluster at ``RAY_ADDRESS``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        ray.init(address="auto", **options)
    except ConnectionError as error:
        if "RAY_ADDRESS" in os.environ:
            reason = " ".join(str(error).split())
            raise UserError(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {reason}") from None
        ray.init(address="local", include_dashboard=False, **options)
