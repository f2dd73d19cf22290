"""The trials on Ray: a task each; what a lost node did not end is done again elsewhere."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from sweeps import node
from sweeps.errors import SweepError
from sweeps.grid import Trial

PAUSES = (0, 2, 30, 120)
"""Seconds before each try of a trial, if it is nodes or services that fail and not the trial."""


class Cluster:
    """A running Ray cluster, or one started on this machine for as long as the block lasts."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    def __enter__(self) -> "Cluster":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own next default; the one of today comes with a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise SweepError("Ray is not installed: `make cluster-setup`") from None
        self._ray = ray
        try:
            _reach(self._address)
            ray.init(
                self._address or "local",
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            said = " ".join(f"{error}".split())
            raise SweepError(f"Ray at {self._address or 'local'}: {said}") from None
        ray.cloudpickle.register_pickle_by_value(node)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def slots(self, cpus: float) -> int:
        """Return how many trials the cluster can run at once."""
        return int(self._ray.cluster_resources().get("CPU", 0) / cpus)

    def run(
        self, trials: Sequence[Trial], order: dict[str, Any], cpus: float, wait: float
    ) -> Iterator[dict[str, Any] | None]:
        """Yield what comes of each trial, as they end; nothing when `wait` seconds bring no end.

        A trial that begins once more is told as `again`.
        """
        # Retried here and not by Ray, so that it is seen and counted with the other faults.
        task = self._ray.remote(num_cpus=cpus, max_retries=0)(node.run)
        errors = self._ray.exceptions

        def submit(trial: Trial, tries: int) -> Any:
            own = {"name": trial.name, "overrides": trial.overrides, "pause": PAUSES[tries]}
            return task.remote(order | own)

        running = {submit(trial, 0): (trial, 1) for trial in trials}
        while running:
            ended, _ = self._ray.wait(list(running), num_returns=1, timeout=wait)
            if not ended:
                yield None
            for ref in ended:
                trial, tries = running.pop(ref)
                try:
                    outcome = self._ray.get(ref)
                except errors.RayError as error:
                    lines = str(error).strip().splitlines()
                    message = lines[-1 if isinstance(error, errors.RayTaskError) else 0]
                    outcome = {"name": trial.name, "status": "again", "metrics": {}}
                    outcome["message"] = message
                if outcome["status"] == "again":
                    if tries < len(PAUSES):
                        running[submit(trial, tries)] = (trial, tries + 1)
                    else:
                        outcome["status"] = "failed"
                yield outcome


def _reach(address: str | None) -> None:
    """Raise `OSError` if nothing listens at `host:port`, for which Ray would wait for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
