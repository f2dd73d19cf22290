"""A sweep over two nodes runs each trial once, and leaves complete experiments and rows."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.light_stages import SCRIPTS
from support.services import MISSING
from support.team import Team, running_team

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from Ray and MLflow
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The services for all tests of this module, which run in order."""
    with running_team(tmp_path_factory.mktemp("team")) as team:
        yield team


@pytest.fixture(scope="module")
def swept(team: Team) -> tuple[Team, str]:
    """A finished sweep of two trials, and what it printed."""
    return team, team.sweep("model.units=3,5", "--metric=-test/loss")


def test_small_grid(swept: tuple[Team, str]) -> None:
    """Two trials run on two nodes, and leave one experiment and one row each."""
    team, said = swept
    assert re.search(r"^grid-\w{12}: trials of commit \w{7}, 0 found, 2 new$", said, re.M)
    assert "2 done, 0 failed" in said
    names = re.findall(r"^(sweep-\S+) \(model.units=[35]\) done on .* s$", said, re.M)
    assert len(re.findall("^sweep-.* done on ", said, re.M)) == 2  # one line each
    assert sorted(names) == team.experiments()
    assert len(names) == 2
    assert len(team.clones()) == 2  # each node has one core
    for units in (3, 5):
        (row,) = team.rows("model.units", units)
        assert row.info.status == "FINISHED"
        assert row.data.tags["dvc.exp_name"] in names
        ref = f"refs/exps/*/*/{row.data.tags['dvc.exp_name']}"
        own = team.clone.git("for-each-ref", "--format=%(objectname)", ref)
        assert row.data.tags["mlflow.source.git.commit"] == own
        assert team.clone.git("rev-parse", f"{own}^") == team.clone.git("rev-parse", "HEAD")
        assert row.data.metrics.keys() >= {"train/loss", "test/accuracy"}
        assert row.data.tags.keys() >= {"dvc-mlflow.lock.train", "dvc-mlflow.lock.evaluate"}
        assert row.data.tags["mlflow.user"] == "Tester"  # the author of its experiment


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
    (run_id,) = re.findall(r"^The best: [\d.]+ sweep-.*: dvc-mlflow restore (\w+)$", said, re.M)
    assert run_id == best.info.run_id
    assert "restored, with the md5s of its dvc.lock" in team.restore(run_id)
    lines = team.clone.dvc("exp", "show", "--csv").stdout.splitlines()
    in_dvc = {line["Experiment"]: line["loss"] for line in csv.DictReader(lines)}
    for row in rows:
        shown = float(in_dvc[row.data.tags["dvc.exp_name"]])
        assert shown == row.data.metrics["test/loss"]


def test_no_secrets(swept: tuple[Team, str]) -> None:
    """The tracking server's password is in nothing that a sweep or Ray writes."""
    team, said = swept
    password = team.server.client["MLFLOW_TRACKING_PASSWORD"]
    assert password not in said
    logs = [*team.folder.glob("node-*/clones/*/*.*"), *team.logs.rglob("*.*")]
    assert len(logs) > 10
    assert not [log for log in logs if password in log.read_text(errors="replace")]


def test_larger_grid(swept: tuple[Team, str]) -> None:
    """A larger grid runs only what is new, even on a new node, and all its rows are one sweep."""
    team, _ = swept
    said = team.sweep("model.units=6,5,3", "--name", "larger", clones="new")
    assert re.search(r"^larger-\w{12}: trials of commit \w{7}, 2 found, 1 new$", said, re.M)
    assert len(team.experiments()) == 3
    assert team.ran("new") == [["train", "evaluate"]]  # the data is from DVC's run cache
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
    """A trial whose experiment was removed from the git remote runs again, and has one row.

    That the clones there are left over from another DVC remote does no harm.
    """
    team, _ = swept
    name = next(row.data.tags["dvc.exp_name"] for row in team.rows("model.units", 5))
    team.clone.dvc("exp", "remove", "-g", "origin", name)
    assert name not in team.experiments()
    stale = "['remote \"team\"']\nkeyfile = /nowhere\nnone = 1\n"
    for path in team.clones():
        (path / "clone/.dvc/config.local").write_text(stale)
    said = team.sweep("model.units=5")
    assert re.search(rf"^{name} .* done on ", said, re.M)
    assert "will be retried" not in said
    assert name in team.experiments()
    (row,) = team.rows("model.units", 5)
    assert row.info.status == "FINISHED"


def test_on_this_machine(swept: tuple[Team, str]) -> None:
    """Without an address, this machine is the cluster, and rows are in the repository's store.

    One result is in the remotes, but this store has no row of it: it is recorded, not run again.
    """
    team, _ = swept
    overrides = ["-S", "model.units=3,8", "-S", "model.cell=lstm"]
    command = ["dvc-mlflow", "sweep", *overrides, "--clones", f"{team.folder}/clones"]
    said = team.clone.run(*command).stdout
    assert re.search(r" 1 found, 1 new$", said, re.M)
    assert len(re.findall("^sweep-.* done on ", said, re.M)) == 1
    assert "2 done, 0 failed" in said
    client = MlflowClient(f"sqlite:///{team.clone.path}/mlflow.db")
    here = client.search_runs([client.get_experiment_by_name("vanilla-lstm").experiment_id])
    assert len(here) == 2
    (there,) = (row for row in team.rows("model.units", 3) if "larger" in row.data.tags["sweep"])
    (row,) = (row for row in here if row.data.params["model.units"] == "3")
    assert row.info.artifact_uri.startswith((team.clone.path / "mlartifacts").as_uri())
    assert row.info.run_name == there.info.run_name
    for what in ("params", "metrics"):
        assert getattr(row.data, what) == getattr(there.data, what)
    shown = (
        "dvc-mlflow.lock.",
        "md5.",
        "dvc-mlflow.tree.",
        "dvc.exp_name",
        "mlflow.source.git.commit",
    )
    tags = [{k: v for k, v in run.data.tags.items() if k.startswith(shown)} for run in (row, there)]
    assert tags[0] == tags[1]


def test_bytes(team: Team, tmp_path: Path) -> None:
    """A trial of the real stages, brought home, has the bytes that `dvc repro` makes there."""
    team.clone.git("checkout", "-q", "HEAD~", "--", *SCRIPTS)
    team.clone.commit("The real stages")
    team.clone.git("push", "-q", "origin", "main")
    said = team.sweep("model.units=3")
    (name,) = re.findall(r"^(sweep-\S+) \(model.units=3\) done", said, re.M)
    home = team.clone.copy(tmp_path / "home")
    home.dvc("exp", "apply", name)
    home.dvc("pull")
    assert home.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    made = home.lock
    home.dvc("repro", "-f")
    assert home.lock == made
