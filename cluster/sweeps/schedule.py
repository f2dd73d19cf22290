"""The trials on Ray: a task each, on a node that the driver chooses."""

import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from typing import Any, NamedTuple

from sweeps import SweepError, node
from sweeps.adaptive import Search
from sweeps.grid import Trial

PAUSES = (2, 30, 120, 480)
"""Seconds before a trial begins once more, if it is nodes or services that fail and not it."""

LIMIT = 3
"""Faults in a row after which a node gets no more trials, if they are its own."""

REST = 2
"""Seconds that a node gets no trials after a fault, times the faults in a row."""


Order = Callable[[Trial], dict[str, Any]]


class Running(NamedTuple):
    """A trial that was given to a node."""

    trial: Trial
    node: str
    host: str
    since: float


class Cluster:
    """A running Ray cluster, or one started on this machine for as long as the block lasts."""

    def __init__(self, address: str | None, cpus: float) -> None:
        self._address, self._cpus = address, cpus
        self.running: dict[Any, Running] = {}
        self.waiting: list[tuple[float, Trial]] = []  # with when to begin
        self._faults: dict[str, list[str]] = defaultdict(list)  # by trial, on which nodes
        self._row: dict[str, list[float]] = defaultdict(list)  # by node, `_good` at its last faults
        self._rest: dict[str, float] = {}  # by node, until when
        self._good = 0.0  # when a trial has ended last, wherever
        self._dropped: set[str] = set()

    def __enter__(self) -> "Cluster":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own next default; the one of today comes with a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        import ray.autoscaler.sdk

        self._ray, where = ray, self._address or "local"
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            ray.init(where, include_dashboard=None if self._address else False, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise SweepError(f"Ray at {where}: {error}") from None
        ray.cloudpickle.register_pickle_by_value(node)
        most = max(found["Resources"].get("CPU", 0) for found in ray.nodes() if found["Alive"])
        if not 0 < self._cpus <= (most or self._cpus):
            ray.shutdown()
            raise SweepError(f"--cpus {self._cpus:g}: the largest node has {most:g}")
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def run(self, search: Search, order: Order) -> Iterator[dict[str, Any]]:
        """Yield what comes of each trial, as they end; on leaving, end those that run.

        A trial that begins once more is told as `again`, a node that gets no more as `dropped`;
        `waiting` says that nothing has ended for a second.
        """
        resize = self._ray.autoscaler.sdk.request_resources
        try:
            resize(bundles=[{"CPU": self._cpus}] * search.left)
            while search.left or self.waiting or self.running:
                self._begin(search, order)
                if not self.running:
                    time.sleep(1)
                ended, _ = self._ray.wait([*self.running], timeout=1) if self.running else ([], [])
                for ref in ended:
                    yield from self._ended(ref)
                if not ended:
                    yield {"status": "waiting"}
        finally:
            resize(bundles=[])
            for ref in self.running:
                self._ray.cancel(ref)
            if n := len(self.running):
                self._ray.wait([*self.running], num_returns=n, timeout=2 * node.GRACE)

    def _begin(self, search: Search, order: Order) -> None:
        """Give every node as many trials as it has room for."""
        nodes = {one["NodeID"]: one for one in self._ray.nodes() if one["Alive"]}
        slots = {key: one["Resources"].get("CPU", 0) // self._cpus for key, one in nodes.items()}
        free = {k: int(n) for k, n in slots.items() if n >= 1 and k not in self._dropped}
        if self._dropped and not free:
            raise SweepError("no node is left that can run trials")
        free = {k: n for k, n in free.items() if self._rest.get(k, 0) <= time.monotonic()}
        for one in self.running.values():
            free[one.node] = free.get(one.node, 0) - 1
        # Retried here and not by Ray, so that it is seen and counted with the other faults.
        task = self._ray.remote(num_cpus=self._cpus, max_retries=0)(node.run)
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        for key in [*free] * max(free.values(), default=0):
            if free[key] > 0 and (trial := self._next(key, free.keys()) or search.ask()):
                free[key] -= 1
                there = task.options(scheduling_strategy=strategy(key, soft=False))
                ref, host = there.remote(order(trial)), nodes[key]["NodeManagerHostname"]
                self.running[ref] = Running(trial, key, host, time.monotonic())

    def _next(self, on: str, nodes: Set[str]) -> Trial | None:
        """Return a trial that begins once more, rather not where it has failed before."""
        for i, (start, trial) in enumerate(self.waiting):
            failed_on = self._faults[trial.name]
            if start <= time.monotonic() and (on not in failed_on or nodes <= {*failed_on}):
                return self.waiting.pop(i)[1]
        return None

    def _ended(self, ref: Any) -> Iterator[dict[str, Any]]:
        trial, on, host, _ = self.running.pop(ref)
        outcome = {"name": trial.name, "host": host, "status": "again", "metrics": {}}
        errors = self._ray.exceptions
        try:
            outcome |= self._ray.get(ref)
        except errors.RayError as error:
            lines = str(error).strip().splitlines()
            outcome["message"] = lines[-1 if isinstance(error, errors.RayTaskError) else 0]
        status, now, row = outcome["status"], time.monotonic(), self._row[on]
        if status not in {"again", "unfit"}:
            self._good = now
            row.clear()
            yield outcome
            return
        row.append(now if status == "unfit" else self._good)
        self._rest[on] = now + REST * len(row)
        # Its own fault: it says so, or others did well between its faults. No trial loses a try.
        if len({*row}) >= LIMIT:
            self._dropped.add(on)
            yield {**outcome, "status": "dropped"}
        if status == "unfit":
            self.waiting.append((now, trial))
            return
        self._faults[trial.name].append(on)
        tries = sum(failed_on not in self._dropped for failed_on in self._faults[trial.name])
        if tries > len(PAUSES):
            yield {**outcome, "status": "failed"}
            return
        self.waiting.append((now + (0, *PAUSES)[tries], trial))
        yield outcome


def reach(address: str | None) -> None:
    """Raise `SweepError` if nothing listens at `host:port`: Ray would wait for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise SweepError(f"Ray at {address}: {error}") from None
