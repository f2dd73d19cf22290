"""A row has what DVC knows from its first second, and tells how its stage failed."""

import signal
from pathlib import Path

import pytest
from mlflow.entities import Run

from support.fronts import reproduced_in_front
from support.live_runs import last, one, recorded, reproducing, wait
from support.pipelines import Repository, evaluate, prepare, repository, train
from support.row_content import columns

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

MD5 = "26ab0db90d72e28ad0ba1e22ee510510"
"""The md5 of `2` and a line's end."""
WAIT = "while [ ! -e go ]; do sleep 0.1; done; "


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """A pipeline whose training waits for the file `go`."""
    fit = {**train(), "deps": ["data.txt", "train.py"], "params": ["rate", "net"]}
    fit["cmd"] = f"{WAIT}{fit['cmd']}"
    stages = {"prepare": prepare(), "train": fit, "a": evaluate("a")}
    params = {"rate": 1, "a": 1, "net": {"units": 3}}
    made = repository(tmp_path / "project", stages, params, {"train.py": "1\n"})
    made.write({"go": ""})
    made.run("dvc-mlflow", "dvc", "repro")
    made.commit("The first")
    made.write({"train.py": "2\n", "raw.txt": "2\n"})
    made.set({"rate": 5, "a": 2})
    (made.path / "go").unlink()
    return made


def running(project: Repository) -> Run:
    """Return the row of the stage that runs, once it has its data sets."""
    return wait(lambda: next((r for r in project.rows()[1:] if r.inputs.dataset_inputs), None))


def known(project: Repository, row: Run) -> None:
    """Assert that a row has what DVC knows of its training when it begins."""
    assert row.data.params == {"rate": "5", "net.units": "3"}
    (given,) = row.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("data.txt", MD5)
    tags = row.data.tags
    assert tags["commit"] == f"after {project.git('rev-parse', '--short=7', 'HEAD')} The first"
    assert tags["mlflow.source.name"].startswith(WAIT[:20])
    assert (row.info.run_name or "").startswith("rate=5 a=2 edited code ")


def test_running(project: Repository) -> None:
    """A RUNNING row has its params, inputs, command, commit and name, and keeps its words."""
    with reproduced_in_front(project) as dvc:
        row = running(project)
        assert row.info.status == "RUNNING"
        known(project, row)
        shown = ["params.`rate`", "tags.`commit`"]
        wait(lambda: columns(project, row)["selectedColumns"][-2:] == shown)
        project.write({"go": ""})
        dvc.communicate()
    done = last(project)
    assert (done.info.run_id, done.info.status) == (row.info.run_id, "FINISHED")
    assert done.info.run_name[:-7] == "rate=5 a=2 edited code "
    assert done.info.run_name[-7:] in done.data.tags["dvc-mlflow.found-by"].split()
    assert done.data.params == {"rate": "5", "a": "2", "net.units": "3"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed(project: Repository, number: signal.Signals) -> None:
    """A row that is killed has them too."""
    with reproduced_in_front(project) as dvc:
        row = running(project)
        dvc.send_signal(number)
        dvc.communicate()
    row = wait(lambda: (r := project.client.get_run(row.info.run_id)).info.status == "KILLED" and r)
    known(project, row)


def test_edited_while_it_runs(project: Repository) -> None:
    """A param that is edited in mid-run fails the stage, and the row keeps the first value."""
    with reproduced_in_front(project) as dvc:
        running(project)
        project.set({"rate": 6})
        project.write({"go": ""})
        said = dvc.communicate()[0]
    assert "params.yaml changed while the stage ran" in said
    row = last(project)
    assert row.info.status == "FAILED"
    assert row.data.params["rate"] == "5"
    assert row.data.tags["mlflow.note.content"].startswith("**FAILED**: `params.yaml changed")


def test_edited_in_the_first_second(tmp_path: Path) -> None:
    """The values are those with which the command began, not those when the recorder looked."""
    command = "sh -c 'sed -i s/rate:.1/rate:\\ 2/ params.yaml; sleep 3; echo 1 > m.json'"
    stages = one(command, metrics=[{"m.json": {"cache": False}}])
    project = repository(tmp_path / "project", stages)
    said = project.dvc("repro", check=False).stderr
    assert "params.yaml changed while the stage ran" in said
    row = last(project)
    assert (row.info.status, row.data.params) == ("FAILED", {"rate": "1"})


def test_failed_at_once(tmp_path: Path) -> None:
    """A row of a stage that fails at once has its params, and the end of its stderr as a file."""
    command = "sh -c 'seq 1 300 >&2; echo no space: token=abc >&2; exit 7'"
    project = repository(tmp_path / "project", one(command, deps=["raw.txt"]), data=["raw.txt"])
    project.dvc("repro", check=False)
    row = last(project)
    assert (row.info.status, row.data.params) == ("FAILED", {"rate": "1"})
    assert [given.dataset.name for given in row.inputs.dataset_inputs] == ["raw.txt"]
    assert row.data.tags["mlflow.note.content"].startswith(
        "**FAILED**: exit status 7: `no space: token=***`\n\n"
    )
    assert project.artifacts(row) == ["stderr.txt"]
    folder = Path((row.info.artifact_uri or "").removeprefix("file://"))
    text = (folder / "stderr.txt").read_text()
    assert text == "".join(f"{i}\n" for i in range(202, 301)) + "no space: token=***\n"


def test_no_file_without_a_failure(tmp_path: Path) -> None:
    """What a stage that succeeds has written to stderr is in no file of its row."""
    stages = one("sh -c 'echo hello >&2; echo 1 > m.json'", metrics=["m.json"])
    project = repository(tmp_path / "project", stages)
    assert "hello" in project.dvc("repro").stderr
    assert project.artifacts(last(project)) == ["m.json"]


def test_script_that_logs_params_itself(tmp_path: Path) -> None:
    """With `open: first`, a script may log a param in its own way, as it could before."""
    script = (
        "import mlflow, time\nmlflow.start_run()\ntime.sleep(1)\nmlflow.log_param('rate', 1.0)\n"
    )
    stages = one("python script.py", meta={"mlflow": {"open": "first"}})
    project = repository(tmp_path / "project", stages, files={"script.py": f"{script}exit(3)\n"})
    project.dvc("repro", check=False)
    row = last(project)
    assert (row.info.status, row.data.params) == ("FAILED", {"rate": "1.0"})


def test_system_metrics(tmp_path: Path) -> None:
    """With MLflow's own switch, a row gets the use of the machine while its stage runs."""
    stages = {"train": {**train("raw.txt"), "cmd": f"{WAIT}{train('raw.txt')['cmd']}"}}
    project = repository(tmp_path / "project", recorded(stages))
    switch = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"}
    with reproducing(project, **switch, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.2") as dvc:
        key = "system/cpu_utilization_percentage"
        row = wait(lambda: next((r for r in project.rows() if key in r.data.metrics), None))
        assert row.info.status == "RUNNING"
        project.write({"go": ""})
        assert dvc.wait() == 0
    done = last(project)
    assert (done.info.run_id, done.info.status) == (row.info.run_id, "FINISHED")
    assert "system/system_memory_usage_megabytes" in done.data.metrics
    project.set({"rate": 2})
    project.dvc("repro", "-q", MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.2")
    assert {*last(project).data.metrics} == {"train/loss"}
