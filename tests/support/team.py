"""A team's real services on loopback, with two nodes of a real Ray cluster."""

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from support.clone import environment
from support.light_stages import SCRIPTS
from support.services import TrackingServer, postgresql, repository, ssh
from support.waiting import wait


class Team:
    """A repository, a git remote, a DVC remote over SSH, a tracking server, and two nodes.

    The stages are light: what happens around them is tested.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.server = TrackingServer(stack.enter_context(postgresql()), folder / "mlflow")
        self._up = stack.enter_context(ExitStack())
        self._up.enter_context(self.server.up())
        port, key = stack.enter_context(ssh(folder / "ssh"))
        remote = f"ssh://127.0.0.1:{port}{folder}/files"
        self.clone = repository(folder, remote, SCRIPTS, keyfile=str(key))
        settings = {"RAY_health_check_failure_threshold": "3"}  # as docs/SWEEP.md says
        with patch.dict(os.environ, settings):
            self.cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        stack.callback(self.cluster.shutdown)
        self.logs = Path(self.cluster.head_node.get_logs_dir_path())
        self._numbers = itertools.count()
        for _ in range(2):
            self.add_node()

    def add_node(self, **variables: str) -> Any:
        """Add a node, with a disk of its own for clones and with one core, and return it."""
        own = {"SCRATCH": f"{self.folder}/node-{next(self._numbers)}", **variables}
        return self.cluster.add_node(num_cpus=1, env_vars=own)

    def node_of(self, process: psutil.Process) -> Any:
        """Return the node whose trial has started a process."""
        above = {parent.pid for parent in process.parents()}
        nodes = self.cluster.worker_nodes
        return next(n for n in nodes if above & {p.pid for _, p in n.live_processes()})

    def command(self, *words: str, clones: str = "clones") -> list[str]:
        """Return the command of a sweep over the nodes, with overrides and options."""
        grid: list[str] = []
        for word in words:
            grid += ["-S", word] if "=" in word and not word.startswith("-") else [word]
        at = ["--address", self.cluster.address, "--clones", f"$SCRATCH/{clones}"]
        return ["dvc-mlflow", "sweep", *grid, *at]

    def sweep(self, *words: str, clones: str = "clones") -> str:
        """Run a sweep to its end, in this process, and return what it printed."""
        return self._tool(*self.command(*words, clones=clones)[1:])

    def restore(self, run_id: str) -> str:
        """Restore a row, and return what was printed."""
        return self._tool("restore", run_id)

    def _tool(self, *arguments: str) -> str:
        said = self.clone.tool(*arguments, **self.server.client)
        assert not said.status, said
        return said.out

    def start(self, *words: str, clones: str = "clones") -> "subprocess.Popen[str]":
        """Begin a sweep."""
        return subprocess.Popen(
            self.command(*words, clones=clones),
            cwd=self.clone.path,
            env=environment(**self.server.client),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def server_away(self) -> Iterator[None]:
        """Stop the tracking server until the block ends."""
        self._up.close()
        yield
        self._up.enter_context(self.server.up())

    def clones(self, name: str = "clones") -> list[Path]:
        """Return the folders that nodes have made for clones, each with its log beside it."""
        return sorted(path for path in self.folder.glob(f"node-*/{name}/*/[0-9]") if path.is_dir())

    def ran(self, clones: str) -> list[list[str]]:
        """Return the stages that ran in each clone's last trial."""
        logs = [path.with_suffix(".log").read_text() for path in self.clones(clones)]
        return [re.findall(r"^Running stage '(.+)':", log, re.M) for log in logs]

    def experiments(self) -> list[str]:
        """Return the names of the experiments in the git remote."""
        lines = self.clone.git("ls-remote", "origin", "refs/exps/*").splitlines()
        return sorted(line.rpartition("/")[2] for line in lines)

    def rows(self, name: str, value: object) -> list[Run]:
        """Return the tracking server's rows with this value of a param."""
        return self.search(f"params.`{name}` = '{value}'")

    def search(self, query: str) -> list[Run]:
        """Return the tracking server's rows that a query finds."""
        client = MlflowClient(self.server.client["MLFLOW_TRACKING_URI"])
        experiment = client.get_experiment_by_name("vanilla-lstm")
        return list(client.search_runs([experiment.experiment_id], query))


def trainings(team: Team) -> list[psutil.Process]:
    """Return the processes that train in the nodes' clones."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = process.cwd().startswith(f"{team.folder}")
            if ours and process.cmdline()[1:] == ["stages/train.py"]:
                found.append(process)
    return found


def wait_until(met: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> Any:
    """Wait for a condition, as long as the process lives; return its true value."""

    def is_met() -> Any:
        value = met()
        if not value and process and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        return value

    return wait(is_met, 300)


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Return what a process prints, up to a line with these words."""
    assert process.stdout
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


@contextmanager
def running_team(folder: Path) -> Iterator[Team]:
    """Run a team's services and nodes, with this process as a client of its tracking server."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        team = Team(folder, stack)
        for name, value in team.server.client.items():
            patch.setenv(name, value)
        yield team
