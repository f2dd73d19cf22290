"""A sweep that cannot start says why in one line, and finds the experiments that there are."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dvc_mlflow.project import Project
from dvc_mlflow.sweep.results import Experiments
from dvc_mlflow.sweep.search import Trials, varied
from support.browser import CHROMEDRIVER, CHROMIUM, browser, wait_for
from support.clone import ROOT, Clone
from support.pipelines import Repository, Said
from support.servers import serving
from support.services import repository
from support.trials import expand

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow and DVC
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone for all tests, which do not change it."""
    folder = tmp_path_factory.mktemp("sweep")
    return repository(folder, f"{folder}/files")


def sweep(clone: Clone, *arguments: str, **more: str) -> Said:
    """Run the command in this process, which has already imported DVC and MLflow."""
    return Repository(clone.path).tool("sweep", *arguments, **more)


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
    assert done.status == 1
    assert line in done.error
    assert len(done.error.splitlines()) == 1
    assert done.out == ""


@pytest.mark.parametrize("address", ["", "sqlite:///mlflow.db", "/tmp/store"])  # noqa: S108
def test_store_that_nodes_do_not_reach(clone: Clone, address: str) -> None:
    """On a cluster, a store that not every node reaches is refused."""
    done = sweep(clone, "-S", "model.units=3", "--address", "auto", MLFLOW_TRACKING_URI=address)
    assert done.status == 1
    (line,) = done.error.splitlines()
    assert line.startswith("dvc-mlflow: MLFLOW_TRACKING_URI: must name a server or database")
    assert f"received '{address}'" in line


@pytest.fixture
def experiments(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Experiments]:
    """The experiments of the clone's commit; `sweep-a` and `sweep-b` are that commit itself."""
    monkeypatch.chdir(clone.path)
    with Project() as project:
        found = Experiments(project, clone.git("rev-parse", "HEAD"))
        found.read()
        assert found.there == {}
        clone.git("push", "-q", "origin", *(f"HEAD:{found.refs}sweep-{name}" for name in "ab"))
        yield found
    clone.git("push", "-q", "origin", *(f":{found.refs}sweep-{name}" for name in "ab"))


def test_experiments(clone: Clone, experiments: Experiments) -> None:
    """A commit's experiments are those now in the git remote, or only those that are named."""
    commit = clone.git("rev-parse", "HEAD")
    experiments.read("sweep-b")
    assert {name: one.kept.commit for name, one in experiments.there.items()} == {"sweep-b": commit}
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


@pytest.mark.rest
@pytest.mark.filterwarnings("ignore")  # warnings from MLflow's client
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
    for sweeps in ("one", "two one", "two", "one2", "one.more"):
        own = {f"dvc-mlflow.sweep.{sweep}": sweep for sweep in sweeps.split()}
        run_id = client.create_run(experiment, tags={"sweep": sweeps, **own}).info.run_id
        client.log_param(run_id, "model.units", 3)
        client.log_metric(run_id, "test/accuracy", 1.0)
    page = address.partition("/#/")[2]
    with serving(clone, "ui") as server, browser(2600, 900) as driver:
        driver.get(f"{server}/#/{page}")
        wait_for(driver, "2 matching runs", "test/accuracy", "model.units")


@pytest.mark.cluster
def test_no_cluster(clone: Clone) -> None:
    """An address without a cluster is reported in one line."""
    pytest.importorskip("ray", reason="not installed: the extra `cluster` (make cluster-setup)")
    with serving(clone, "server", "--workers", "1") as server:
        store = server.replace("://", "://user:secret@")
        where = ("--address", "127.0.0.1:9")
        done = sweep(clone, "-S", "model.units=3", *where, MLFLOW_TRACKING_URI=store)
    assert done.status == 1
    assert done.error.splitlines()[-1].startswith("dvc-mlflow: Ray at 127.0.0.1:9: ")
    assert "Traceback" not in done.error
    assert "secret" not in done.out + done.error


@pytest.mark.cluster
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
    assert done.status == 1
    assert words in done.error.splitlines()[-1]
    assert f"'{space}'" in done.error.splitlines()[-1]
    assert "Traceback" not in done.error


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9"])
def test_bad_timeout(seconds: str, clone: Clone) -> None:
    """A timeout that Python could not wait for is refused before anything runs."""
    done = sweep(clone, "-S", "model.units=3", "--timeout", seconds)
    assert done.status == 1
    rule = "dvc-mlflow: --timeout: must be from 1 to 2000000 s; received "
    assert done.error.splitlines()[-1] == f"{rule}{float(seconds):g}"


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("--trials=0", "must be at least 1"),
        ("--seed=-1", "must be from 0 to"),
        ("--cpus=0", "must be at least 0.01"),
        ("--gpus=-1", "must be at least 0"),
    ],
)
def test_bad_number(option: str, rule: str, clone: Clone) -> None:
    """A number that no trial could use, or Optuna could not take, is refused."""
    done = sweep(clone, "--optuna", "model.units=3,4", option)
    assert done.status == 1
    name, _, value = option.partition("=")
    (line,) = done.error.splitlines()
    assert line.startswith(f"dvc-mlflow: {name}: {rule}")
    assert line.endswith(f"; received {value}")
