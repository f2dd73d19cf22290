"""A team's real services on loopback, with two nodes of a real Ray cluster."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from support.clone import Done, environment
from support.services import TrackingServer, postgresql, repository, ssh
from support.waiting import wait


class Team:
    """A repository, a git remote, a DVC remote over SSH, a tracking server, and two nodes."""

    def __init__(self, folder: Path, stack: ExitStack, files: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.server = TrackingServer(stack.enter_context(postgresql()), folder / "mlflow")
        self._up = stack.enter_context(ExitStack())
        self._up.enter_context(self.server.up())
        port, key = stack.enter_context(ssh(folder / "ssh"))
        remote = f"ssh://127.0.0.1:{port}{folder}/files"
        self.clone = repository(folder, remote, files, keyfile=str(key))
        # Of every node that has no other scratch folder, and of the head, as docs/SERVICES.md says.
        own = {"SCRATCH": str(folder), "RAY_health_check_failure_threshold": "3"}
        for name, value in own.items():
            os.environ[name] = value
            stack.callback(os.environ.pop, name)
        self.cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        stack.callback(self.cluster.shutdown)
        self.logs = Path(self.cluster.head_node.get_logs_dir_path())
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def command(self, *words: str, clones: str = "clones") -> list[str]:
        """Return the command of a sweep over the nodes, with overrides and options."""
        grid: list[str] = []
        for word in words:
            grid += ["-S", word] if "=" in word and not word.startswith("-") else [word]
        at = ["--address", self.cluster.address, "--clones", f"$SCRATCH/{clones}"]
        return ["dvc-mlflow", "sweep", *grid, *at]

    def sweep(self, *words: str, clones: str = "clones", check: bool = True) -> Done:
        """Run a sweep to its end."""
        command = self.command(*words, clones=clones)
        return self.clone.run(*command, check=check, **self.server.client)

    def restore(self, run_id: str) -> Done:
        """Restore a row."""
        return self.clone.run("dvc-mlflow", "restore", run_id, check=True, **self.server.client)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Begin a sweep."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.clone.path,
            env=environment(**self.server.client),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def restart_server(self) -> None:
        """Stop the tracking server, and start it after a while."""
        self._up.close()
        time.sleep(3)
        self._up.enter_context(self.server.up())

    def ran(self, clones: str) -> list[list[str]]:
        """Return the stages that ran in each clone's last trial."""
        logs = [log.read_text() for log in (self.folder / clones).glob("*/*.log")]
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


@contextmanager
def running_team(folder: Path, files: Mapping[str, str] = {}) -> Iterator[Team]:
    """Run a team's services and nodes, with this process as a client of its tracking server.

    `files` are texts, by path, that replace those of this repository.
    """
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        team = Team(folder, stack, files)
        for name, value in team.server.client.items():
            patch.setenv(name, value)
        yield team
