"""DVC projects with remotes that are folders, to sweep over."""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

from dvc_mlflow.pipeline.tags import EXPERIMENT, SWEEP
from support.clone import Clone, Done, environment
from support.forked import Forked
from support.pipelines import Repository
from support.processes import wait

SCORE = """
import json, sys
x, y = (float(value) for value in sys.argv[2:4])
with open(sys.argv[1], "w") as file:
    json.dump({"score": (x - 2) ** 2 + y}, file)
"""
"""score.py FILE X Y."""


class Shared:
    """A Ray cluster of its head and another node, and a server that they reach."""

    def __init__(self, folder: Path, client: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.client, self._numbers = folder, {**client}, itertools.count()
        self.cluster = Cluster()
        # Without processes that no sweep needs; for each node there are two of Python's left.
        self.add_node(include_dashboard=False, include_log_monitor=False, no_monitor=True)
        self.add_node()
        self.logs = Path(self.cluster.head_node.get_logs_dir_path())

    def add_node(self, **options: Any) -> Any:
        """Return a new node with one core, and a folder of its own for clones, `$SCRATCH`."""
        own = {"SCRATCH": f"{self.folder}/node-{next(self._numbers)}"}
        return self.cluster.add_node(env_vars=own, num_cpus=1, **options)

    def is_of(self, process: psutil.Process, node: Any) -> bool:
        """Whether a trial on a node has started a process."""
        above = {parent.pid for parent in process.parents()}
        return bool(above & {own.pid for _, own in node.live_processes()})


class Sweep(Forked):
    """A running sweep."""

    def said(self, timeout: float = 600) -> str:
        """Wait for its end, and return what it printed."""
        self.wait(timeout)
        return Path(self.out).read_text()


class Project(Clone):
    """A DVC project in a git repository, with remotes that are folders.

    It is swept over a shared cluster, where its experiment is named after `path`, or on a Ray that
    each sweep starts.
    """

    def __init__(
        self, path: Path, files: Mapping[str, object], folder: str = "", on: Shared | None = None
    ) -> None:
        self._on, self._name, name = on, path.name, path.name if on else "flowers"
        self._sweeps = itertools.count()
        super().__init__(path / name / folder)
        self.path.mkdir(parents=True)
        (path / "files").mkdir()
        self.top = Clone(path / name)
        self.top.git("init", "-q", "-b", "main")
        self.dvc("init", "-q", *(["--subdir"] if folder else []))
        self.dvc("remote", "add", "-q", "-d", "files", f"{path}/files")
        for file, content in files.items():
            (self.path / file).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            (self.path / file).write_text(text)
        self.remote = path / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", self.remote], check=True)
        self.top.git("remote", "add", "origin", f"{self.remote}")
        self.top.commit("A project")
        self.top.git("push", "-q", "origin", "main")
        self.clones = f"$SCRATCH/{path.name}" if on else f"{path}/clones"

    def dvc(self, *arguments: str, check: bool = True, **more: str) -> Done:
        """Run `dvc` in this process."""
        return Repository(self.path).dvc(*arguments, check=check, **more)

    def command(self, *words: str) -> list[str]:
        """Return the command of a sweep."""
        at = ["--address", self._on.cluster.address] if self._on else []
        return ["dvc-mlflow", "sweep", *words, *at, "--clones", self.clones]

    @property
    def _client(self) -> dict[str, str]:
        """The variables of a sweep: without any, its rows are in the repository's own store."""
        return self._on.client if self._on else {}

    def sweep(self, *words: str, check: bool = True) -> str:
        """Run a sweep, over a shared cluster in this process, and return what was printed."""
        command = self.command(*words)
        if not self._on:
            done = self.run(*command, check=check)
            return done.stdout + done.stderr
        said = Repository(self.path).tool(*command[1:], **self._client)
        assert not (check and said.status), said
        return said.out + said.error

    def start(self, *words: str, **more: str) -> Sweep:
        """Begin a sweep, with `more` added to its environment."""
        log = self.top.path.with_name(f"sweep-{next(self._sweeps)}.log")
        log.touch()
        env = environment(**self._client, **more)
        return Sweep(self.command(*words), self.path, env, f"{log}")

    def stages(self) -> list[psutil.Process]:
        """Return the processes of stages that run in its clones."""
        found = psutil.process_iter(["cwd", "cmdline"])
        place = f"{self._on.folder if self._on else self.top.path.parent}/"
        own = [p for p in found if (p.info["cwd"] or "").startswith(place)]
        own = [p for p in own if self._name in p.info["cwd"].split("/")]
        return [p for p in own if {"score.py", "sleep"} & {*(p.info["cmdline"] or ())}]

    def experiments(self) -> list[str]:
        """Return the names of the experiments in the git remote."""
        lines = self.git("ls-remote", "origin", "refs/exps/*").splitlines()
        return sorted(line.rpartition("/")[2] for line in lines)

    def rows(self) -> list[Run]:
        """Return the rows that its sweeps have left, in a store of its own in any experiment."""
        here = f"sqlite:///{self.path}/mlflow.db"
        client = MlflowClient(self._client.get("MLFLOW_TRACKING_URI", here))
        every = client.search_experiments()
        own = [one for one in every if not self._on or one.name == self.top.path.name]
        return list(client.search_runs([one.experiment_id for one in own]))


def stage(command: str, name: str, *params: Any, **more: Any) -> dict[str, Any]:
    """Return a stage that writes its score to a metrics file of its name."""
    metrics = [{f"{name}.json": {"cache": False}}]
    return {"cmd": command, "deps": ["score.py"], "params": [*params], "metrics": metrics, **more}


def small(path: Path, files: Mapping[str, object] = {}, on: Shared | None = None) -> Project:
    """Return a project with a stage without the prefix, a param, and these files."""
    dvc = {"stages": {"a": stage("exec python score.py a.json ${x} 0", "a", "x")}}
    own = {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": {"x": 0}, **files}
    return Project(path, own, on=on)


TOGETHER = """
import os, time
open(f"{folder}/{{os.getpid()}}", "w").close()
while len(os.listdir("{folder}")) < 2:
    time.sleep(0.1)
"""
"""The begin of a script that waits until two trials run."""

WRITES = """
import json, os, sys
open("{0}/ran", "a").write(".")
open("out.bin", "wb").write(os.urandom(3_000_000))
json.dump({{"score": float(sys.argv[2])}}, open("a.json", "w"))
"""


def writing(path: Path, on: Shared) -> Project:
    """Return a project whose stage writes an output of 3 MB, and notes that it ran."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x", outs=["out.bin"])
    files = {"dvc.yaml": {"stages": {"a": own}}, "score.py": WRITES.format(path)}
    return small(path, files, on)


STUBBORN = "sh -c 'trap \"\" TERM; python score.py a.json ${x} 0; sleep 600; true'"
HANGING = {"dvc.yaml": {"stages": {"a": stage(STUBBORN, "a", "x")}}}
"""A stage that does not end, nor at SIGTERM."""


def values(rows: Iterable[Run], *keys: str) -> list[tuple[str, ...]]:
    """Return the values of these params in each row, sorted."""
    return sorted(tuple(row.data.params[key] for key in keys) for row in rows)


def check(project: Project, said: str, trials: int, n: int) -> list[Run]:
    """Return the `n` rows of a sweep, whose trials are all there, and once each."""
    assert f"{trials} done, 0 failed" in said
    title = said.lstrip().partition(":")[0]
    rows = project.rows()
    assert [row.info.status for row in rows] == ["FINISHED"] * n
    assert all(f"{SWEEP}{title}" in row.data.tags for row in rows)
    names = [row.data.tags[EXPERIMENT] for row in rows]
    assert {*project.experiments()} == {*names}
    assert len({*names}) == trials
    return rows


def wait_until(met: Callable[[], Any], process: Sweep | None = None) -> Any:
    """Wait for a condition, as long as the process lives; return its true value."""

    def is_met() -> Any:
        value = met()
        if not value and process and process.poll() is not None:
            raise AssertionError(process.said())
        return value

    return wait(is_met, 300)
