"""Trials as tasks of Ray, which places them, counts cores and cards, and knows the dead nodes.

Retries are ours: with Ray's own (`retry_exceptions`), one node of three that failed at once took 86
tries of 20 trials and lost 16 for good; and a task whose node has lost its link fails minutes after
Ray has announced that the node is dead, unless its pings kill healthy workers as well.
"""

import logging
import os
import re
import secrets
import signal
import socket
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

from ..errors import ToolError
from ..project.experiments import AGAIN, UNFIT, UNPUSHED
from . import node

PAUSES = (2, 30, 120, 480)
"""Seconds before each retry of a trial, when a node or a service has failed and not the trial."""


class Running(NamedTuple):
    """A trial that is with Ray; it has no node until it has begun."""

    name: str
    since: float
    node: str = ""
    host: str = "?"


class Cluster:
    """A running Ray cluster, or one started on this machine, until it is closed."""

    def __init__(self, options: Namespace) -> None:
        """Raise `ToolError` if there is no such cluster, or none with such a node."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's future default; today's comes with a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if not options.address:  # nobody else reaches the cluster, nor reads its token in a file
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as there: loopback
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        self._ray = ray
        wanted = {"CPU": options.cpus, "GPU": options.gpus}
        self._needs = {kind: number for kind, number in wanted.items() if number}
        self.running: dict[Any, Running] = {}
        self._waiting: list[tuple[float, str]] = []  # with their earliest start
        self._homes: dict[str, str] = {}  # the nodes that have results of trials
        self._orders: dict[str, dict[str, Any]] = {}
        self._faults: dict[str, list[str]] = defaultdict(list)  # by trial, on which nodes
        self._unfit: set[str] = set()
        self._left = ExitStack()
        # Ray prints 20 lines on the state of each node that is lost, and has no setting for it.
        self._left.enter_context(redirect_stdout(StringIO()))
        where = options.address or "local"
        host, _, port = where.rpartition("://")[2].rpartition(":")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        term = signal.getsignal(signal.SIGTERM)
        try:
            if port.isdecimal():  # Ray would wait for minutes if nothing listens there
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(where, include_dashboard=None if options.address else False, **quiet)
        except Exception as error:  # that is what Ray raises if a node does not start in time
            raise ToolError(f"Ray at {where}: {' '.join(f'{error}'.split())}") from None
        signal.signal(signal.SIGTERM, term)  # Ray's own would abort
        for option, kind in (("--cpus", "CPU"), ("--gpus", "GPU")):
            most = max(each["Resources"].get(kind, 0) for each in self._alive().values())
            # Nodes with cores can join later.
            if wanted[kind] > most and (most or kind == "GPU"):
                self.close()
                raise ToolError(
                    f"{option}: the largest node has {most:g}; received {wanted[kind]:g}"
                )
        ray.cloudpickle.register_pickle_by_value(node)
        own = {"num_cpus": options.cpus, "num_gpus": options.gpus, "max_retries": 0}
        self._task = ray.remote(num_returns="streaming", **own)(node.run)

    @property
    def room(self) -> int:
        """How many more trials can run at once."""
        fit = [one for key, one in self._alive().items() if key not in self._unfit]
        if not fit and self._unfit:
            raise ToolError("no node is left that can run trials")
        slots = [
            min(int(o["Resources"].get(k, 0) // n) for k, n in self._needs.items()) for o in fit
        ]
        return sum(slots) - len(self.running) - len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether no trial is running or waiting."""
        return not (self.running or self._waiting)

    def begin(self, order: dict[str, Any]) -> None:
        """Give a trial to Ray."""
        self._orders[order["name"]] = order
        self._submit(order["name"])

    def events(self) -> Iterator[tuple[Running, Mapping[str, Any]]]:
        """Wait, at most a second, and yield what has happened: a note, or an outcome of a trial.

        An outcome has `retry` if the trial is retried, and `is_new` if its node gets no more now.
        """
        for start, name in [*self._waiting]:
            if start <= time.monotonic():
                self._waiting.remove((start, name))
                self._submit(name)
        if not self.running:
            time.sleep(0.2)
            return
        self._ray.wait([*self.running], timeout=1, fetch_local=False)
        n = len(self.running)
        ready, others = self._ray.wait([*self.running], num_returns=n, timeout=0, fetch_local=False)
        alive = self._alive()
        lost = [ref for ref in others if self.running[ref].node not in {"", *alive}]
        for ref in (*ready, *lost):
            running = self.running[ref]
            try:
                if ref in lost:
                    raise self._ray.exceptions.GetTimeoutError
                event = self._ray.get(next(ref), timeout=5)
            except self._ray.exceptions.GetTimeoutError:
                event = {"status": "again", "message": "the node it was running on is dead"}
            except (self._ray.exceptions.RayError, StopIteration) as error:
                said = re.split(r"\n|\. ", f"{getattr(error, 'cause', error)}".strip())[0]
                event = {"status": "again", "message": said}
            if "node" in event:
                self.running[ref] = running._replace(**event)
            elif "note" in event:
                yield running, event
            else:
                del self.running[ref]
                yield running, self._after(running, {"seconds": 0.0, "log": "", **event})

    def _after(self, running: Running, outcome: dict[str, Any]) -> Mapping[str, Any]:
        """Return the outcome of a trial, after it was put back if it is to be retried."""
        name, faults = running.name, self._faults[running.name]
        if outcome["status"] == UNFIT:
            outcome["is_new"] = running.node not in self._unfit
            self._unfit.add(running.node)
            self._waiting.append((0.0, name))  # this costs the trial no retry
        elif outcome["status"] in {AGAIN, UNPUSHED} and len(faults) < len(PAUSES):
            outcome["retry"] = pause = PAUSES[len(faults)]
            self._waiting.append((time.monotonic() + pause, name))
            if outcome["status"] == UNPUSHED:
                self._homes[name] = running.node
            faults.append("" if name in self._homes else running.node)
        return outcome

    def _submit(self, name: str) -> None:
        """Let Ray place a trial where its results are, or if possible where it has not failed."""
        alive = {*self._alive()}
        bad = {*self._faults[name], *self._unfit} & alive
        bad = bad if alive - bad else self._unfit & alive
        how: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
        if bad:
            how["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(bad))})"}
        if (home := self._homes.get(name)) in alive - self._unfit:
            to = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            how = {"scheduling_strategy": to(home, soft=True)}
        ref = self._task.options(**how).remote(self._orders[name])
        self.running[ref] = Running(name, time.monotonic())

    def _alive(self) -> dict[str, Any]:
        """Return the nodes that can run trials, by their ids."""
        alive = {one["NodeID"]: one for one in self._ray.nodes() if one["Alive"]}
        return {k: o for k, o in alive.items() if o["Resources"].get("CPU")} or alive

    def close(self) -> None:
        """End the running trials, and leave the cluster."""
        for ref in self.running:
            self._ray.cancel(ref)
        if ends := [ref.completed() for ref in self.running]:
            self._ray.wait(ends, num_returns=len(ends), timeout=2.5 * node.GRACE)
        self._ray.shutdown()
        self._left.close()
