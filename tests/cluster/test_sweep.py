"""Sweeps before anything starts: their trials, and mistakes reported in one line."""

import ast
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from dvc.repo import Repo as DvcRepo
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunData, RunInfo

from browser import CHROMEDRIVER, CHROMIUM, browser, wait_for
from clone import ROOT, Clone, Done, make_clone
from dvc_mlflow.errors import ToolError
from dvc_mlflow.project import Project
from dvc_mlflow.project.experiments import grid
from dvc_mlflow.sweep.node import masked
from dvc_mlflow.sweep.report import Report
from dvc_mlflow.sweep.results import Experiments
from dvc_mlflow.sweep.search import Search, Trial, Trials, varied
from imports import imported_names
from servers import serving
from services import repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's index
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone for all tests, which leave it as it is."""
    folder = tmp_path_factory.mktemp("sweep")
    return repository(folder, f"{folder}/files")


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The params are those of the working directory."""
    monkeypatch.chdir(ROOT)


def sweep(clone: Clone, *arguments: str, **more: str) -> Done:
    return clone.run("dvc-mlflow", "sweep", *arguments, check=False, **more)


def expand(overrides: list[str], commit: str) -> dict[str, Trial]:
    with Project() as project:
        make = Trials(project, commit)
        return {trial.name: trial for trial in map(make.trial, grid(overrides))}


def test_grid_is_that_of_dvc(tmp_path: Path) -> None:
    """A grid has the trials that `dvc exp run --queue` makes from the same overrides."""
    overrides = ["train.learning_rate=0.001,0.003", "model.units=range(5,30,5)"]
    clone = make_clone(tmp_path / "clone")
    options = [option for override in overrides for option in ("-S", override)]
    said = clone.dvc("exp", "run", "--queue", *options).stdout
    trials = expand(overrides, "c0ffee")
    assert len(trials) == 10
    for trial in trials.values():
        assert f"{{'params.yaml': {list(trial.overrides)}}}" in said


def test_names() -> None:
    """A name depends on commit and params, not on what was typed: equal params are one trial."""

    def names(commit: str, *overrides: str) -> list[str]:
        return [*expand([*overrides], commit)]

    (name,) = names("c0ffee", "model.units=5", "train.learning_rate=0.001")
    assert names("c0ffee", "train.learning_rate=1e-3", "model.units=5") == [name]
    assert names("c0ffee", "model.units=5") == [name]  # the rate is as committed
    assert names("c0ffee", "model.units=5.0", "train.seed=1234") == [name]
    assert names("c0ffee", "train.learning_rate=1e-3", "model.units=5,5") == [name]
    assert names("facade", "train.learning_rate=1e-3", "model.units=5") != [name]
    assert names("c0ffee", "train.learning_rate=1e-3", "model.units=6") != [name]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.unit=3", "Could not override 'model.unit'"),
        ("model.units", "missing EQUAL"),
        ("model.units=3,", "mismatched input"),
        ("model.units=glob(*)", "not supported"),
        ("nowhere.yaml:model.units=3", "nowhere.yaml"),
    ],
)
def test_bad_overrides(override: str, words: str) -> None:
    """An override that no trial could use is reported with its text."""
    options, nowhere = Namespace(set_param=[override], optuna=[]), cast("Any", None)
    with Project() as project, pytest.raises(ToolError) as error:
        Search(options, "", Trials(project, "c0ffee"), nowhere)
    assert words in masked(str(error.value))
    assert f"'{override}'" in masked(str(error.value))


def uncommitted(clone: Clone) -> None:
    clone.set({"model.units": 7})


def not_pushed(clone: Clone) -> None:
    clone.commit()


def no_dvc_remote(clone: Clone) -> None:
    clone.dvc("remote", "remove", "team")
    clone.commit()
    clone.git("push", "-q", "origin", "main")


def no_git_remote(clone: Clone) -> None:
    clone.git("remote", "remove", "origin")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (uncommitted, "params.yaml: not committed, so no node would have it"),
        (not_pushed, "is not in the git remote 'origin': `git push` it first"),
        (no_dvc_remote, "no DVC remote: `dvc remote add -d NAME URL` first"),
        (no_git_remote, "git remote: error: No such remote 'origin'"),
    ],
)
def test_repository_not_ready(spoil: Callable[[Clone], Any], line: str, tmp_path: Path) -> None:
    """If nodes could not clone or push, the sweep stops before it starts, in one line."""
    clone = repository(tmp_path, f"{tmp_path}/files")
    spoil(clone)
    done = sweep(clone, "-S", "model.units=3")
    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("address", ["", "sqlite:///mlflow.db", "/tmp/store"])  # noqa: S108
def test_store_that_nodes_do_not_reach(clone: Clone, address: str) -> None:
    """On a cluster the rows need a store that every node reaches."""
    done = sweep(clone, "-S", "model.units=3", "--address", "auto", MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dvc-mlflow: MLFLOW_TRACKING_URI: must name a server or database")
    assert f"received '{address}'" in line


def test_masked() -> None:
    """A password in an address is not shown."""
    said = "no\n https://ann:secret@git.example.org/a"
    assert masked(said) == "no https://***@git.example.org/a"


def test_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of trials never change; otherwise existing trials would run again."""
    (tmp_path / "params.yaml").write_text("model: {units: 3, cell: lstm}\ntrain: {rate: 1e-3}\n")
    (tmp_path / "more.toml").write_text("[data]\nrows = 4\n")
    monkeypatch.chdir(tmp_path)
    DvcRepo.init(no_scm=True).close()
    (trial,) = expand(["model.units=5"], "c0ffee").values()
    assert trial.name == "sweep-3eb67749912f"
    content = {"model.units": 5, "model.cell": "lstm", "train.rate": 0.001}
    assert trial.params == {"params.yaml": content}
    assert [*expand(["model.units=5", "more.toml:data.rows=4"], "c0ffee")] == [trial.name]
    (other,) = expand(["model.units=5", "more.toml:data.rows=5"], "c0ffee").values()
    assert other.name == "sweep-fab1a09501bc"
    assert other.params == {"params.yaml": content, "more.toml": {"data.rows": 5}}


@pytest.fixture
def experiments(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Experiments]:
    """Those of the clone's commit, among which `sweep-a` and `sweep-b` are that commit itself."""
    monkeypatch.chdir(clone.path)
    with Project() as project:
        found = Experiments(project, clone.git("rev-parse", "HEAD"))
        found.read()
        assert found.there == {}
        clone.git("push", "-q", "origin", *(f"HEAD:{found.refs}sweep-{name}" for name in "ab"))
        yield found
    clone.git("push", "-q", "origin", *(f":{found.refs}sweep-{name}" for name in "ab"))


def test_experiments(clone: Clone, experiments: Experiments) -> None:
    """A commit's experiments are those now in the git remote, or of these the named ones."""
    commit = clone.git("rev-parse", "HEAD")
    experiments.read("sweep-b")
    assert {name: one.commit for name, one in experiments.there.items()} == {"sweep-b": commit}
    experiments.read()
    assert experiments.there.keys() == {"sweep-a", "sweep-b"}
    clone.git("push", "-q", "origin", f":{experiments.refs}sweep-a")
    experiments.read()
    assert experiments.there.keys() == {"sweep-b"}
    clone.git("push", "-q", "origin", f"HEAD:{experiments.refs}sweep-a")


def test_result(experiments: Experiments) -> None:
    """A result has the digests by which its row is found."""
    experiments.read()
    ((experiment, digests),) = experiments.there["sweep-a"].rows
    assert experiment == "vanilla-lstm"
    assert digests.keys() == {"train", "evaluate"}


def test_other_pipeline(clone: Clone, experiments: Experiments) -> None:
    """An experiment of the user's own is read with its own dvc.yaml."""
    file, commit = clone.path / "dvc.yaml", clone.git("rev-parse", "HEAD")
    file.write_text(file.read_text().replace("vanilla-lstm", "another"))
    clone.commit()
    clone.git("push", "-q", "--force", "origin", f"HEAD:{experiments.refs}sweep-b")
    clone.git("reset", "-q", "--hard", commit)
    experiments.read()
    names = {name: one.rows[0][0] for name, one in experiments.there.items()}
    assert names == {"sweep-a": "vanilla-lstm", "sweep-b": "another"}


def test_donors(experiments: Experiments, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage is taken from an experiment with the same params for it and all stages before it."""
    experiments.read("sweep-a")
    monkeypatch.chdir(ROOT)  # its params made the dvc.lock that the clone has, too
    with Project() as project:
        params = Trials(project, "c0ffee").now["params.yaml"]
        stages = project.pipeline().stages

    def taken(**other: object) -> dict[str, str]:
        changed = {key.replace("__", "."): value for key, value in other.items()}
        return experiments.donors({"params.yaml": {**params, **changed}})

    assert taken() == dict.fromkeys(stages, "sweep-a")
    assert taken(test_data__seed=0) == dict.fromkeys(["generate-train-data", "train"], "sweep-a")
    assert taken(model__units=0).keys() == {"generate-train-data", "generate-test-data"}
    assert taken(data__n_max=0) == {}


@pytest.mark.filterwarnings("ignore")  # what MLflow's client warns of in the test's process
@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs Debian's chromium-driver")
def test_address(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's address opens the table with the usual columns and only the sweep's rows."""
    from dvc_mlflow.sweep.table import Table  # it imports what MLflow warns of

    monkeypatch.chdir(clone.path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    varies = varied([*expand(["model.units=3,4"], "c0ffee").values()])
    assert varies == {"model.units": [3, 4]}
    client = MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    commit = clone.git("rev-parse", "HEAD")
    with Project() as project:
        table = Table(project, commit, Experiments(project, commit))
        (address,) = table.urls("one", "-test/loss", varies)
    experiment = client.get_experiment_by_name("vanilla-lstm").experiment_id
    for sweeps in ("one", "two one", "two"):
        run_id = client.create_run(experiment, tags={"sweep": sweeps}).info.run_id
        client.log_param(run_id, "model.units", 3)
        client.log_metric(run_id, "test/accuracy", 1.0)
    page = address.partition("/#/")[2]
    with serving(clone, "ui") as server, browser(2600, 900) as driver:
        driver.get(f"{server}/#/{page}")
        wait_for(driver, "2 matching runs", "test/accuracy", "model.units")


def test_what_nodes_need() -> None:
    """One module imports Ray, and the code sent to nodes needs only Python there."""
    modules = sorted((ROOT / "dvc_mlflow").rglob("*.py"))
    tops = {path: {name.partition(".")[0] for name in imported_names(path)} for path in modules}
    assert [path.name for path in modules if "ray" in tops[path]] == ["schedule.py"]
    (node,) = (path for path in modules if path.name == "node.py")
    assert tops[node] <= sys.stdlib_module_names


def test_no_private_names() -> None:
    """The code uses no private name of DVC, Ray, Optuna or Hydra, and subclasses none of them."""
    tool = ROOT / "dvc_mlflow"
    for path in [tool / "project/experiments.py", *sorted((tool / "sweep").glob("*.py"))]:
        assert private_names(path.read_text()) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "import ray._private.state",
        "from dvc.stage.cache import _get_stage_hash",
        "from hydra._internal import x",
        "repo.stage_cache._load(stage)",
        "class Cache(StageCache): pass",
    ],
)
def test_private_name_is_found(line: str) -> None:
    """The test above can fail."""
    assert private_names(line)


def private_names(source: str) -> list[str]:
    """Return the private names that a module uses from others, and its foreign base classes."""
    found, own = [], {"Exception", "NamedTuple", "Protocol", "ProjectError"}
    ours = {"_repo", "_name", "_replace"}  # of the tool's Project, and of a NamedTuple
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if "._" in alias.name]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if "._" in name]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            by_name = isinstance(node.value, ast.Name) and node.value.id == "self"
            if not by_name and not node.attr.startswith("__") and node.attr not in ours:
                found.append(node.attr)
        elif isinstance(node, ast.ClassDef):
            found += [base for base in map(ast.unparse, node.bases) if base not in own]
    return found


def test_no_cluster(clone: Clone) -> None:
    """An address without a cluster is reported in one line."""
    pytest.importorskip("ray", reason="not installed: the extra `cluster` (make cluster-setup)")
    with serving(clone, "server", "--workers", "1") as server:
        store = server.replace("://", "://user:secret@")
        where = ("--address", "127.0.0.1:9")
        done = sweep(clone, "-S", "model.units=3", *where, MLFLOW_TRACKING_URI=store)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("dvc-mlflow: Ray at 127.0.0.1:9: ")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("model.units=3", "Can only enumerate CHOICE and RANGE sweeps"),
        ("model.units=log(0,3)", "low"),
        ("model.units=cos(0,3)", "Unknown function 'cos'"),
        ("model.nope=3,4", "Could not override 'model.nope'"),
    ],
)
def test_bad_space(space: str, words: str, clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search space that Optuna cannot use is reported in one line, with its text."""
    pytest.importorskip("optuna", reason="not installed: the extra `cluster` (make cluster-setup)")
    done = sweep(clone, "--optuna", space)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert f"'{space}'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9"])
def test_bad_timeout(seconds: str, clone: Clone) -> None:
    """A timeout that Python could not wait for is refused before anything runs."""
    done = sweep(clone, "-S", "model.units=3", "--timeout", seconds)
    assert done.returncode == 1
    rule = "dvc-mlflow: --timeout: must be from 1 to 2000000 s; received "
    assert done.stderr.splitlines()[-1] == f"{rule}{float(seconds):g}"


def row(**metrics: float) -> Run:
    """Return a row that only has these metrics."""
    info = RunInfo("a", "1", "me", "FINISHED", 0, 1, "active")
    return Run(info, RunData([Metric(key, value, 0, 0) for key, value in metrics.items()]))


def test_no_such_metric() -> None:
    """A metric that rows do not have ends the sweep at its first result."""
    (trial,) = expand(["model.units=1"], "c0ffee").values()
    outcome = {"host": "a", "status": "done", "seconds": 2.0, "message": ""}
    report = Report("-los", {trial.name: trial}, 1)
    report.rows[trial.name] = []  # they could not be looked at
    report.event(trial, outcome)
    report.rows[trial.name] = [row(loss=0.25), row(rate=1.0)]
    with pytest.raises(ToolError, match="--metric: must be one of loss, rate; received 'los'"):
        report.event(trial, outcome)


def test_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep prints a line per event, its progress now and then, and at the end what failed."""
    now = time.monotonic()
    found = expand(["model.units=1,2,3,4,5"], "c0ffee")
    names, trials = [*found], [*found.values()]
    report = Report("-loss", found, 5)
    report.rows[names[0]] = [row(loss=0.5)]
    report.state(2, [])  # printed at most once a minute
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    report.state(2, [(trials[1], "id", "b", now - 9)])
    outcome: dict[str, Any] = {"host": "a", "seconds": 2.0, "message": ""}
    report.event(trials[1], {**outcome, "status": "again", "message": "lost"})
    report.event(trials[1], {**outcome, "status": "dropped", "message": "full"})
    report.rows[names[1]] = [row(loss=0.75), row(loss=0.25)]  # of two rows the better one counts
    report.event(trials[1], {**outcome, "status": "done"})
    report.event(trials[2], {**outcome, "status": "failed", "message": "model.units: too small"})
    report.rows[names[3]] = [row(loss=float("nan"))]
    report.event(trials[3], {**outcome, "status": "done"})
    report.rows[names[4]] = []
    assert [*report.values().items()] == [(names[1], 0.25), (names[0], 0.5)]
    assert not report.end()
    said = capsys.readouterr().out.splitlines()
    best = "best 0.5 (model.units=1)"
    longest = f"longest {names[1]} on b: 0:01:10"
    assert said[0] == f"  1 done, 1 running, 0 failed, 2 left, {best}, {longest}"
    assert said[1] == f"{names[1]} will be retried; a: lost"
    assert said[2] == "a gets no more trials: full"
    assert said[3] == f"{names[1]} done on a in 2.0 s: 0.25 (model.units=2)"
    assert said[4] == f"{names[2]} failed on a in 2.0 s: model.units: too small"
    assert said[5] == f"{names[3]} done on a in 2.0 s: - (model.units=4)"
    assert said[6] == "  4 done, 0 running, 1 failed, 0 left, best 0.25 (model.units=2)"
    assert said[7] == f"{names[2]} failed: model.units: too small"
    assert said[8] == f"{names[4]} failed: it has no row in MLflow"
    assert report.failed == {names[2]: "model.units: too small"}
