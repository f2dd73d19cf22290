"""Sweeps over two nodes of a real Ray cluster, with a team's real services, all on loopback."""

import csv
import getpass
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from clone import TINY, Clone, Done, environment, make_clone
from dvc_mlflow.protocol import TOKEN
from services import MISSING, TrackingServer, postgresql, repository, ssh

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what Ray and MLflow warn of in the test's process
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


RESULTS = ({"lock.train"}, {"lock.train", "lock.evaluate"})


class Team:
    """A repository, a git remote, a DVC remote over SSH, a tracking server, and two nodes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.server = TrackingServer(stack.enter_context(postgresql()), folder / "mlflow")
        self._up = stack.enter_context(ExitStack())
        self._up.enter_context(self.server.up())
        port, key = stack.enter_context(ssh(folder / "ssh"))
        self.clone = repository(folder, f"ssh://127.0.0.1:{port}{folder}/files", keyfile=str(key))
        os.environ["SCRATCH"] = str(folder)  # of every node that has no other
        stack.callback(os.environ.pop, "SCRATCH")
        self.cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        stack.callback(self.cluster.shutdown)
        self.logs = Path(self.cluster.head_node.get_logs_dir_path())
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def command(self, *words: str, clones: str = "clones") -> list[str]:
        """Return the command of a sweep over the nodes, with overrides and options."""
        grid: list[str] = []
        for before, word in pairwise(["", *words]):
            grid += ["-S", word] if "=" in word and before != "--optuna" else [word]
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


def locked(clone: Clone) -> dict[str, str]:
    """Return the md5 of everything that the pipeline made."""
    stages = YAML(typ="safe").load(clone.lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


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
    deadline = time.monotonic() + 300
    while not (value := met()):
        assert time.monotonic() < deadline, "not met in time"
        if process and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The services, for all tests, which run in their order."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        team = Team(tmp_path_factory.mktemp("team"), stack)
        for name, value in team.server.client.items():
            patch.setenv(name, value)
        yield team


@pytest.fixture(scope="module")
def swept(team: Team) -> tuple[Team, str]:
    """A finished sweep of two trials, and what it printed."""
    return team, team.sweep("model.units=3,5").stdout


def test_small_grid(swept: tuple[Team, str]) -> None:
    """Two trials run on two nodes; the experiments and the rows are there, once each."""
    team, said = swept
    assert re.search(r"^grid-\w{12}: trials of commit \w{7}, 0 found, 2 new$", said, re.M)
    assert re.search(r"2 done, 0 running, 0 failed, 0 left, best [\d.]+ \(model.units=\d\)", said)
    names = re.findall(r"^(sweep-\S+) done on .* [\d.]+ \(model.units=[35]\)$", said, re.M)
    assert len(re.findall("^sweep-", said, re.M)) == 2  # one line each
    assert sorted(names) == team.experiments()
    assert len(names) == 2
    clones = [path for path in team.folder.glob("clones/*/*") if path.is_dir()]
    assert len(clones) == 2  # each node has one core
    for units in (3, 5):
        (row,) = team.rows("model.units", units)
        assert row.info.status == "FINISHED"
        assert row.data.tags["dvc.exp_name"] in names
        assert row.data.tags["mlflow.source.git.commit"] == team.clone.git("rev-parse", "HEAD")
        assert row.data.tags["mlflow.source.git.dirty"] == "false"
        assert row.data.metrics.keys() >= {"train/loss", "test/accuracy"}
        assert row.data.tags.keys() >= {"lock.train", "lock.evaluate"}
        assert row.data.tags["mlflow.user"] == getpass.getuser()


def test_one_thing(swept: tuple[Team, str]) -> None:
    """All rows have the sweep's name; its address and the best row's addresses are printed."""
    team, said = swept
    title = said.partition(":")[0]
    rows = team.search(f"tags.sweep = '{title}'")
    assert {row.data.params["model.units"] for row in rows} == {"3", "5"}
    address = re.search(r"^In MLflow: (\S+)$", said, re.M)
    assert address
    assert address[1].startswith(team.server.client["MLFLOW_TRACKING_URI"])
    assert f"viewStateShareKey={title}&" in address[1]
    best = min(rows, key=lambda row: float(row.data.metrics["test/loss"]))
    pattern = r"^The best: dvc-mlflow restore (\w+), its model is models:/(\S+)$"
    ((run_id, model),) = re.findall(pattern, said, re.M)
    assert run_id == best.info.run_id
    (found,) = [row for row in rows if row.info.run_id == run_id]
    assert [output.model_id for output in found.outputs.model_outputs] == [model]
    restored = team.restore(run_id)
    assert "`dvc status` there reports that its stages are up to date" in restored.stdout
    team.clone.dvc("exp", "pull", "origin")
    lines = team.clone.dvc("exp", "show", "--csv").stdout.splitlines()
    in_dvc = {line["Experiment"]: line["accuracy"] for line in csv.DictReader(lines)}
    for row in rows:
        shown = float(in_dvc[row.data.tags["dvc.exp_name"]])
        assert shown == row.data.metrics["test/accuracy"]


def test_no_secrets(swept: tuple[Team, str]) -> None:
    """The tracking server's password is in nothing that a sweep or Ray writes."""
    team, said = swept
    password = team.server.client["MLFLOW_TRACKING_PASSWORD"]
    assert password not in said
    logs = [*team.folder.glob("clones/*/*.*"), *team.logs.rglob("*.*")]
    assert len(logs) > 10
    assert not [log for log in logs if password in log.read_text(errors="replace")]


def test_bytes(swept: tuple[Team, str], tmp_path: Path) -> None:
    """A trial brought home has the md5s that a plain `dvc repro` with its params makes."""
    team, said = swept
    team.clone.dvc("exp", "pull", "origin")
    shown = team.clone.dvc("exp", "show", "--csv").stdout
    assert all(name in shown for name in team.experiments())
    (name,) = set(re.findall(r"^(sweep-\S+) .*\(model.units=3\)$", said, re.M))
    home = team.clone.copy(tmp_path / "home")
    home.dvc("exp", "apply", name)
    assert home.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    plain = make_clone(tmp_path / "plain", {**TINY, "model.units": 3})
    plain.dvc("repro")
    assert locked(home) == locked(plain)
    made = {path: (plain.path / path).read_bytes() for path in locked(plain)}
    assert made == {path: (home.path / path).read_bytes() for path in made}


def test_larger_grid(swept: tuple[Team, str]) -> None:
    """A larger grid runs only what is new, even on a new node, and all its rows are one sweep."""
    team, _ = swept
    said = team.sweep("model.units=6,5,3", "--name", "larger", clones="new").stdout
    assert re.search(r"^larger: trials of commit \w{7}, 2 found, 1 new$", said, re.M)
    assert len(team.experiments()) == 3
    assert team.ran("new") == [["train", "evaluate"]]
    rows = team.search("tags.sweep LIKE '%larger%'")
    assert {row.data.params["model.units"] for row in rows} == {"3", "5", "6"}


def test_training_restored(swept: tuple[Team, str]) -> None:
    """A node that never ran it takes an unchanged training from another trial."""
    team, _ = swept
    before = len(team.experiments())
    team.sweep("model.units=3", "evaluate.batch_size=7", "test_data.seed=8", clones="restored")
    assert team.ran("restored") == [["generate-test-data", "evaluate"]]
    assert len(team.experiments()) == before + 1
    (row,) = team.rows("test_data.seed", 8)
    (first,) = [run for run in team.rows("model.units", 3) if run.info.run_id != row.info.run_id]
    assert row.data.tags["md5.data/model.keras"] == first.data.tags["md5.data/model.keras"]
    assert row.data.metrics["train/loss"] == first.data.metrics["train/loss"]


def test_redone(swept: tuple[Team, str]) -> None:
    """A trial whose experiment was removed from the git remote runs again, and has one row."""
    team, _ = swept
    name = next(row.data.tags["dvc.exp_name"] for row in team.rows("model.units", 5))
    team.clone.dvc("exp", "remove", "-g", "origin", name)
    assert name not in team.experiments()
    said = team.sweep("model.units=5").stdout
    assert re.search(rf"^{name} done on ", said, re.M)
    assert name in team.experiments()
    (row,) = team.rows("model.units", 5)
    assert row.info.status == "FINISHED"


def test_stale_config(swept: tuple[Team, str]) -> None:
    """A clone that is left over from another DVC remote does no harm."""
    team, _ = swept
    for clone in (team.folder / "restored").glob("*/*/*/"):
        (clone / ".dvc" / "config.local").write_text(
            "['remote \"team\"']\nkeyfile = /nowhere\nnone = 1\n"
        )
    done = team.sweep("model.units=3", "test_data.seed=9", clones="restored")
    assert "1 done, 0 running, 0 failed, 0 left" in done.stdout
    assert "will be retried" not in done.stdout


def test_bad_trial(swept: tuple[Team, str]) -> None:
    """A trial with bad params is reported once, with its stage's error; the others run."""
    team, _ = swept
    done = team.sweep("model.units=-1,3", "test_data.seed=7", check=False)
    assert done.returncode == 1
    line = "params.yaml: model.units: must be at least 1; received -1"
    assert len(re.findall(rf"^sweep-\S+ failed on .*{re.escape(line)}$", done.stdout, re.M)) == 1
    assert "will be retried" not in done.stdout
    assert re.search(r"1 done, 0 running, 1 failed, 0 left", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr


def test_node_killed(team: Team) -> None:
    """Another node runs what a killed node had begun, once; no row is left running."""
    before = len(team.experiments())
    process = team.start("train.seed=1,2")
    assert process.stdout
    training = wait_until(lambda: trainings(team), process)[0]
    training.suspend()  # so that it cannot end before its node
    above = {parent.pid for parent in training.parents()}
    node = next(n for n in team.nodes if above & {p.pid for _, p in n.live_processes()})
    team.nodes.remove(node)
    team.cluster.remove_node(node, allow_graceful=False)
    said = next(line for line in process.stdout if "will be retried" in line)
    assert "the node it was running on is dead" in said
    training.kill()
    rest, _ = process.communicate()
    assert process.returncode == 0, rest
    assert len(team.experiments()) == before + 2
    for seed in (1, 2):
        rows = [row for row in team.rows("train.seed", seed) if row.info.status == "FINISHED"]
        assert len(rows) == 1
        assert not [row for row in team.rows("train.seed", seed) if row.info.status == "RUNNING"]
    team.nodes.append(team.cluster.add_node(num_cpus=1))


def test_stage_killed(team: Team) -> None:
    """A trial is retried if a signal ended its stage, as when the node's memory is used up."""
    process = team.start("train.seed=8")
    wait_until(lambda: trainings(team), process)[0].kill()
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert re.search(r" will be retried; .*: .*stages/train\.py, exited with 137$", said, re.M)
    assert "1 done, 0 running, 0 failed, 0 left" in said
    rows = team.rows("train.seed", 8)
    assert [row.info.status for row in rows] == ["FINISHED"]


def test_driver_killed(team: Team) -> None:
    """A sweep whose driver was killed continues when it is started again."""
    before, grid = len(team.experiments()), "test_data.n_samples=range(21,24)"
    process = team.start(grid)
    wait_until(lambda: len(team.experiments()) > before, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    said = team.sweep(grid).stdout
    assert re.search(r" [12] found, [12] new$", said, re.M)
    assert "3 done, 0 running, 0 failed, 0 left" in said
    assert len(team.experiments()) == before + 3
    for samples in range(21, 24):
        assert len(team.rows("test_data.n_samples", samples)) == 1


def test_two_drivers(team: Team) -> None:
    """If two sweeps run the same trial at the same time, the first result stands, once."""
    before = len(team.experiments())
    both = [team.start("train.seed=5") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "1 done, 0 running, 0 failed, 0 left" in said[0]
    results = [re.findall(r"best ([\d.]+) \(train.seed=5\)$", one, re.M)[-1:] for one in said]
    assert results[0] == results[1] != []
    assert len(team.experiments()) == before + 1
    assert [row.info.status for row in team.rows("train.seed", 5)] == ["FINISHED"]


def test_rows_settled(team: Team) -> None:
    """The next sweep cleans up what a lost node or a second driver left in MLflow."""
    client = MlflowClient(team.server.client["MLFLOW_TRACKING_URI"])
    (row,) = team.rows("train.seed", 5)
    tags = row.data.tags
    same = {name: tags[name] for name in ("dvc.exp_name", "mlflow.source.git.commit")}
    training, result = ({k: v for k, v in tags.items() if k in names} for names in RESULTS)
    another = {**result, "lock.evaluate": "of a trial that shares the training"}
    leftovers = [("FINISHED", training), ("FINISHED", result), ("FINISHED", another)]
    for status, more in [*leftovers, ("RUNNING", {}), ("KILLED", {})]:
        run = client.create_run(row.info.experiment_id, tags={**same, **more})
        for name, value in row.data.params.items():
            client.log_param(run.info.run_id, name, value)
        if status != "RUNNING":
            client.set_terminated(run.info.run_id, status)
    script = client.create_run(row.info.experiment_id, tags={**same, **result, TOKEN: "a"})
    said = team.sweep("train.seed=5").stdout
    assert "1 found, 0 new" in said
    left = {run.info.run_id: run.info.status for run in team.rows("train.seed", 5)}
    assert left.pop(row.info.run_id) == "FINISHED"
    assert [*left.values()] == ["FINISHED"]  # the result on other test data
    # What a script has logged by itself could not be made again.
    assert client.get_run(script.info.run_id).data.tags["reproduces"] == row.info.run_id


def test_remote_away(team: Team) -> None:
    """A trial that cannot push is retried, and finds the remote when it is back."""
    git, away = team.folder / "git", team.folder / "away"
    process = team.start("train.seed=6")
    assert process.stdout
    wait_until(lambda: team.rows("train.seed", 6), process)
    git.rename(away)
    said = next(line for line in process.stdout if "will be retried" in line)
    away.rename(git)
    rest, _ = process.communicate()
    assert f"'{git}' does not appear to be a git repository" in said
    assert process.returncode == 0, rest
    assert "1 done, 0 running, 0 failed, 0 left" in rest
    (row,) = team.rows("train.seed", 6)
    assert row.info.status == "FINISHED"


def test_server_restarted(team: Team) -> None:
    """While the tracking server restarts, no trial fails, and each is recorded completely."""
    process = team.start("train.seed=3,4")
    wait_until(lambda: team.rows("train.seed", 3) or team.rows("train.seed", 4), process)
    team.restart_server()
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert "2 done, 0 running, 0 failed, 0 left" in said
    for seed in (3, 4):
        (row,) = [r for r in team.rows("train.seed", seed) if r.info.status == "FINISHED"]
        assert row.data.metrics.keys() >= {"train/loss", "test/accuracy"}
        assert row.data.tags.keys() >= {"lock.train", "lock.evaluate"}


def test_on_this_machine(swept: tuple[Team, str]) -> None:
    """Without an address, this machine is the cluster, and rows are in the repository's store.

    One result is in the DVC remote, but this store has no row of it: it is recorded, not run again.
    """
    team, _ = swept
    overrides = ["-S", "model.units=3,8", "-S", "model.cell=lstm"]
    command = ["dvc-mlflow", "sweep", *overrides, "--clones", f"{team.folder}/clones"]
    said = team.clone.run(*command).stdout
    assert re.search(r" 1 found, 1 new$", said, re.M)
    assert len(re.findall("^sweep-.* is recorded from git and DVC", said, re.M)) == 1
    assert len(re.findall("^sweep-.* done on ", said, re.M)) == 1
    assert "2 done, 0 running, 0 failed, 0 left" in said
    client = MlflowClient(f"sqlite:///{team.clone.path}/mlflow.db")
    here = client.search_runs([client.get_experiment_by_name("vanilla-lstm").experiment_id])
    assert len(here) == 2
    (there,) = (row for row in team.rows("model.units", 3) if "larger" in row.data.tags["sweep"])
    (row,) = (row for row in here if row.data.params["model.units"] == "3")
    assert row.info.artifact_uri.startswith((team.clone.path / "mlartifacts").as_uri())
    assert row.info.run_name == there.info.run_name
    for what in ("params", "metrics"):
        assert getattr(row.data, what) == getattr(there.data, what)
    shown = ("lock.", "md5.", "tree.", "dvc.exp_name", "mlflow.source.git.commit")
    tags = [{k: v for k, v in run.data.tags.items() if k.startswith(shown)} for run in (row, there)]
    assert tags[0] == tags[1]


def test_killed_search(team: Team) -> None:
    """An adaptive search whose driver was killed twice ends with one row for each point."""
    pytest.importorskip("optuna", reason="not installed: the extra `cluster` (make cluster-setup)")
    before = len(team.experiments())
    space = ["--optuna", "train.learning_rate=log(1e-4,1e-2)"]
    space += ["--optuna", "model.units=interval(3,6)"]
    search = [*space, "--trials", "6", "--name", "search"]
    for n in (before + 1, before + 3):
        process = team.start(*search)
        wait_until(partial(lambda n: len(team.experiments()) >= n, n), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = team.sweep(*search).stdout
    assert re.search(r"^search: trials of commit \w{7}, [345] found, [123] new$", said, re.M)
    assert "6 done, 0 running, 0 failed, 0 left" in said
    assert len(team.experiments()) == before + 6
    rows = team.search("tags.sweep = 'search'")
    assert [row.info.status for row in rows] == ["FINISHED"] * 6
    points = {
        (row.data.params["train.learning_rate"], row.data.params["model.units"]) for row in rows
    }
    assert len(points) == 6
    assert all(1e-4 <= float(rate) <= 1e-2 and int(units) in range(3, 7) for rate, units in points)


def test_hanging_trial(team: Team) -> None:
    """A trial that hangs is ended with its processes after the timeout, and its row is KILLED."""
    words = ["train.epochs=100000", "train.seed=7", "--timeout", "60", "--name", "hanging"]
    process = team.start(*words)
    wait_until(lambda: team.search("tags.sweep = 'hanging'"), process)
    (training,) = trainings(team)
    training.suspend()
    said = process.communicate()[0]
    assert process.returncode == 1
    assert re.search(r"^sweep-\S+ failed on .*: ended after 60 s \(--timeout\)$", said, re.M)
    assert not trainings(team)
    rows = team.search("tags.sweep = 'hanging'")
    assert [row.info.status for row in rows] == ["KILLED"]


def test_interrupted(team: Team) -> None:
    """Ctrl-C ends the trials on every node, and no row is left running."""
    process = team.start("train.epochs=1000000", "train.seed=1,2", "--name", "interrupted")
    wait_until(lambda: len(team.search("tags.sweep = 'interrupted'")) == 2, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[0]
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    assert not trainings(team)
    rows = team.search("tags.sweep = 'interrupted'")
    notes = [row.data.tags.get("mlflow.note.content", "") for row in rows]
    assert [row.info.status for row in rows] == ["KILLED", "KILLED"], notes


def test_unfit_nodes(team: Team) -> None:
    """A node without a disk, or with another Keras, gets no more trials; none loses a retry."""
    old = team.folder / "old"
    (old / "keras-3.12.0.dist-info").mkdir(parents=True)
    about = "Metadata-Version: 2.1\nName: keras\nVersion: 3.12.0\n"
    (old / "keras-3.12.0.dist-info" / "METADATA").write_text(about)
    spoiled = [{"SCRATCH": "/dev/null"}, {"PYTHONPATH": str(old)}]
    nodes = [team.cluster.add_node(num_cpus=1, env_vars=variables) for variables in spoiled]
    try:
        said = team.sweep("train.seed=range(30,34)").stdout
    finally:
        for node in nodes:
            team.cluster.remove_node(node)
    dropped = sorted(re.findall("^.* gets no more trials: (.*)$", said, re.M))
    assert dropped[0].startswith("[Errno 20] Not a directory: '/dev/null/clones/")
    assert dropped[1].startswith("keras 3.12.0 is not 3.")
    assert len(dropped) == 2
    assert "will be retried" not in said
    assert "4 done, 0 running, 0 failed, 0 left" in said


def test_node_without_git_remote(team: Team) -> None:
    """A node that keeps failing for an unknown reason gets no more trials if others succeed."""
    folder = team.folder / "programs"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\necho no route to the git server >&2\nexit 128\n")
    (folder / "git").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    node = team.cluster.add_node(num_cpus=1, env_vars={"PATH": path})
    try:
        said = team.sweep("train.seed=range(50,62)").stdout
    finally:
        team.cluster.remove_node(node)
    dropped = re.findall("^.* gets no more trials: (.*)$", said, re.M)
    assert dropped == ["no route to the git server"]
    assert "12 done, 0 running, 0 failed, 0 left" in said


def test_too_many_cores(team: Team) -> None:
    """A trial that no node can run is refused at once."""
    done = team.sweep("train.seed=40", "--cpus", "2", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "dvc-mlflow: --cpus: the largest node has 1; received 2"
