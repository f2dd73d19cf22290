"""Run trials on Ray: each is a task on a node that the driver chooses."""

import logging
import math
import os
import socket
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Set
from typing import Any

from ..errors import ToolError
from . import node
from .search import Trial

# Seconds before each retry of a trial, when a node or a service has failed and not the trial.
PAUSES = (2, 30, 120, 480)
LIMIT = 3  # faults in a row that drop a node, if other nodes had successes in between
REST = 2  # seconds without new trials after a fault, for each fault in a row

Ask = Callable[[], Trial | None]
Running = tuple[Trial, str, str, float]  # with its node, the node's host, and when it began


class Cluster:
    """A running Ray cluster, or one started on this machine, until it is closed.

    It runs the given trials and, when a node has room left, those that it asks for.
    """

    def __init__(self, options: Namespace, trials: list[Trial], ask: Ask) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's future default; today's comes with a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray, self._cpus, self._ask = ray, options.cpus, ask
        self.running: dict[Any, Running] = {}
        self.waiting = [(0.0, trial) for trial in trials]  # with their earliest start
        self._faults: dict[str, list[str]] = defaultdict(list)  # by trial, on which nodes
        self._streak: dict[str, list[float]] = defaultdict(list)  # by node, `_good` at its faults
        self._rest: dict[str, float] = defaultdict(float)  # by node, until when; inf: it is dropped
        self._good = 0.0  # when a node last had no fault
        where = options.address or "local"
        host, _, port = where.rpartition("://")[2].rpartition(":")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if port.isdecimal():  # Ray would wait for minutes if nothing listens there
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(where, include_dashboard=None if options.address else False, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ToolError(f"Ray at {where}: {error}") from None
        most = max(found["Resources"].get("CPU", 0) for found in ray.nodes() if found["Alive"])
        if not 0 < self._cpus <= (most or self._cpus):
            raise ToolError(f"--cpus: the largest node has {most:g}; received {self._cpus:g}")
        ray.cloudpickle.register_pickle_by_value(node)
        # Retried here, not by Ray, so that retries are shown and counted with the other failures.
        self._task = ray.remote(num_cpus=self._cpus, max_retries=0)(node.run)

    def close(self) -> None:
        """End the running trials, and leave the cluster."""
        for ref in self.running:
            self._ray.cancel(ref)
        if n := len(self.running):
            self._ray.wait([*self.running], num_returns=n, timeout=2 * node.GRACE)
        self._ray.shutdown()

    def begin(self, order: Callable[[Trial], dict[str, Any]]) -> bool:
        """Start as many trials as there is room for; return whether any is running or waiting."""
        nodes = {one["NodeID"]: one for one in self._ray.nodes() if one["Alive"]}
        room = {k: int(one["Resources"].get("CPU", 0) // self._cpus) for k, one in nodes.items()}
        fit = [key for key in nodes if room[key] and self._rest[key] < math.inf]
        if not fit and math.inf in self._rest.values():
            raise ToolError("no node is left that can run trials")
        free = Counter({key: room[key] for key in fit if self._rest[key] <= time.monotonic()})
        free.subtract(on for _, on, _, _ in self.running.values())
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        for key in [*free] * max(free.values(), default=0):
            if free[key] > 0 and (trial := self._next(key, free.keys()) or self._ask()):
                free[key] -= 1
                there = self._task.options(scheduling_strategy=strategy(key, soft=False))
                ref, host = there.remote(order(trial)), nodes[key]["NodeManagerHostname"]
                self.running[ref] = trial, key, host, time.monotonic()
        return bool(self.running or self.waiting)

    def ended(self) -> list[tuple[Trial, dict[str, Any]]]:
        """Wait, at most a second, until a trial has ended; return the outcomes of all that have."""
        if not self.running:
            time.sleep(1)
            return []
        self._ray.wait([*self.running], timeout=1)
        ended, _ = self._ray.wait([*self.running], num_returns=len(self.running), timeout=0)
        return [self._outcome(ref) for ref in ended]

    def _next(self, on: str, nodes: Set[str]) -> Trial | None:
        """Return a waiting trial, if possible one that has not failed on this node."""
        for i, (start, trial) in enumerate(self.waiting):
            failed_on = self._faults[trial.name]
            if start <= time.monotonic() and (on not in failed_on or nodes <= {*failed_on}):
                return self.waiting.pop(i)[1]
        return None

    def _outcome(self, ref: Any) -> tuple[Trial, dict[str, Any]]:
        """Return the outcome of a trial; its status is `dropped` if the node gets no more."""
        trial, on, host, _ = self.running.pop(ref)
        outcome = {"host": host, "status": "again", "seconds": 0.0}
        try:
            outcome |= self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            outcome["message"] = f"{getattr(error, 'cause', error)}".strip().partition("\n")[0]
        status, now, streak = outcome["status"], time.monotonic(), self._streak[on]
        if status not in {"again", "unfit"}:
            self._good = now
            streak.clear()
            return trial, outcome
        streak.append(self._good)
        was_dropped = self._rest[on] == math.inf
        # The node is to blame: it says so, or others succeeded between its faults. This costs a
        # trial no retry.
        dropped = was_dropped or status == "unfit" or len({*streak}) >= LIMIT
        self._rest[on] = math.inf if dropped else now + REST * len(streak)
        self._faults[trial.name].append(on)
        tries = sum(self._rest[failed_on] < math.inf for failed_on in self._faults[trial.name])
        if tries > len(PAUSES):
            return trial, {**outcome, "status": "failed"}
        self.waiting.insert(0, (now + (0, *PAUSES)[tries], trial))
        return trial, {**outcome, "status": "dropped" if dropped and not was_dropped else "again"}
