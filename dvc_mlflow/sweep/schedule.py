"""Run trials on Ray: each is a task on a node that the driver chooses.

Ray's own placement (`SPREAD`) and retries (`retry_exceptions`) favour a node that fails at once:
one such node of three took 86 tries of 20 trials of 3 s, and 16 of them failed for good.
"""

import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack, redirect_stdout
from typing import IO, Any, cast

from ..errors import ToolError
from . import node
from .search import Trial

# Seconds before each retry of a trial, when a node or a service has failed and not the trial.
PAUSES = (2, 30, 120, 480)
LIMIT = 3  # faults in a row that drop a node, if other nodes had successes in between
REST = 2  # seconds without new trials after a fault, for each fault in a row

Ask = Callable[[], Trial | None]
Running = tuple[Trial, str, str, float]  # with its node, the node's host, and when it began


class _WithoutRay:
    """A stream without what Ray's threads print: 20 lines on the state of each node that is lost.

    Ray has no setting for it.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        is_rays = threading.current_thread().name.startswith("ray_")
        return len(text) if is_rays else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Cluster:
    """A running Ray cluster, or one started on this machine, until it is closed.

    It runs the given trials and, when a node has room left, those that it asks for.
    """

    def __init__(self, options: Namespace, trials: list[Trial], ask: Ask) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's future default; today's comes with a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if not options.address:  # nobody else reaches the cluster, nor reads its token in a file
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as there: loopback
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        self._ray, self._ask = ray, ask
        wanted = {"CPU": options.cpus, "GPU": options.gpus}
        self._needs = {kind: number for kind, number in wanted.items() if number}
        self.running: dict[Any, Running] = {}
        self.waiting = [(0.0, trial) for trial in trials]  # with their earliest start
        self._faults: dict[str, list[str]] = defaultdict(list)  # by trial, on which nodes
        self._streak: dict[str, list[float]] = defaultdict(list)  # by node, `_good` at its faults
        self._rest: dict[str, float] = defaultdict(float)  # by node, until when; inf: it is dropped
        self._good = 0.0  # when a node last had no fault
        self._left = ExitStack()
        self._left.enter_context(redirect_stdout(cast("IO[str]", _WithoutRay(sys.stdout))))
        where = options.address or "local"
        host, _, port = where.rpartition("://")[2].rpartition(":")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if port.isdecimal():  # Ray would wait for minutes if nothing listens there
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(where, include_dashboard=None if options.address else False, **quiet)
        except Exception as error:  # that is what Ray raises if a node does not start in time
            raise ToolError(f"Ray at {where}: {' '.join(f'{error}'.split())}") from None
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would abort
        for option, kind in (("--cpus", "CPU"), ("--gpus", "GPU")):
            wanted = self._needs.get(kind, 0)
            most = max(each["Resources"].get(kind, 0) for each in ray.nodes() if each["Alive"])
            # Nodes with cores can join later.
            if wanted > most and (most or kind == "GPU"):
                raise ToolError(f"{option}: the largest node has {most:g}; received {wanted:g}")
        ray.cloudpickle.register_pickle_by_value(node)
        # Retried here, not by Ray, so that retries are shown and counted with the other failures.
        own = {"num_cpus": options.cpus, "num_gpus": options.gpus, "max_retries": 0}
        self._task = ray.remote(**own)(node.run)

    def close(self) -> None:
        """End the running trials, and leave the cluster."""
        for ref in self.running:
            self._ray.cancel(ref)
        if n := len(self.running):
            self._ray.wait([*self.running], num_returns=n, timeout=2 * node.GRACE)
        self._ray.shutdown()
        self._left.close()

    def begin(self, order: Callable[[Trial], dict[str, Any]]) -> bool:
        """Start as many trials as there is room for; return whether any is running or waiting."""
        nodes = {one["NodeID"]: one for one in self._ray.nodes() if one["Alive"]}
        room = {key: self._room(one["Resources"]) for key, one in nodes.items()}
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

    def _room(self, resources: Mapping[str, float]) -> int:
        """Return how many trials a node can run at once."""
        return min(int(resources.get(kind, 0) // number) for kind, number in self._needs.items())

    def ended(self) -> list[tuple[Trial, dict[str, Any]]]:
        """Wait, at most a second, until a trial has ended; return the outcomes of all that have."""
        if not self.running:
            time.sleep(1)
            return []
        self._ray.wait([*self.running], timeout=1)
        ended, others = self._ray.wait([*self.running], num_returns=len(self.running), timeout=0)
        # Ray announces that a node is dead minutes before a task of it fails, if it just vanished.
        alive = {one["NodeID"] for one in self._ray.nodes() if one["Alive"]}
        lost = [ref for ref in others if self.running[ref][1] not in alive]
        return [self._outcome(ref) for ref in (*ended, *lost)]

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
            outcome |= self._ray.get(ref, timeout=1)
        except self._ray.exceptions.GetTimeoutError:
            outcome["message"] = "the node it was running on is dead"
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
