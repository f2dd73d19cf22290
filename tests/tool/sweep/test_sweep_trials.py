"""A sweep's trials have names that never change, and each is reported in one line."""

import time
from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import pytest
from dvc.repo import Repo as DvcRepo
from mlflow.entities import Metric, Run, RunData, RunInfo

from dvc_mlflow.errors import ToolError
from dvc_mlflow.project import Project
from dvc_mlflow.sweep.node import masked
from dvc_mlflow.sweep.picture import draw
from dvc_mlflow.sweep.report import Report, Score
from dvc_mlflow.sweep.search import Search, Trial, Trials
from support.clone import ROOT, make_clone
from support.trials import expand

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's index
]


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in this repository, whose params the trials have."""
    monkeypatch.chdir(ROOT)


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
    report.keep(trial, outcome)
    report.rows[trial.name] = [row(loss=0.25), row(rate=1.0)]
    with pytest.raises(ToolError, match="--metric: must be one of loss, rate; received 'los'"):
        report.keep(trial, outcome)


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

    def event(trial: Trial, **how: str) -> None:
        report.keep(trial, {**outcome, **how})
        report.show(trial, {**outcome, **how})

    event(trials[1], status="again", message="lost")
    event(trials[1], status="dropped", message="full")
    report.rows[names[1]] = [row(loss=0.75), row(loss=0.25)]  # of two rows the better one counts
    event(trials[1], status="done")
    event(trials[2], status="failed", message="model.units: too small", log="/tmp/b.log")  # noqa: S108
    report.rows[names[3]] = [row(loss=float("nan"))]
    event(trials[3], status="done")
    report.rows[names[4]] = []
    assert [*report.values().items()] == [(names[1], 0.25), (names[0], 0.5)]
    assert not report.end()
    said = capsys.readouterr().out.splitlines()
    best = "best 0.5 (model.units=1)"
    longest = f"longest {names[1]} on b: 0:01:10"
    assert said[0] == f"  1 done, 1 running, 0 failed, 2 left, {best}, {longest}"
    assert said[1] == f"{names[1]} (model.units=2) will be retried; a: lost"
    assert said[2] == "a gets no more trials: full"
    assert said[3] == f"{names[1]} done on a in 2.0 s: 0.25 (model.units=2)"
    why = "model.units: too small (its log: a:/tmp/b.log)"
    assert said[4] == f"{names[2]} (model.units=3) failed on a in 2.0 s: {why}"
    assert said[5] == f"{names[3]} done on a in 2.0 s: - (model.units=4)"
    assert said[6] == "  4 done, 0 running, 1 failed, 0 left, best 0.25 (model.units=2)"
    assert said[7] == f"failed: {names[2]} (model.units=3)"
    assert said[8] == f"without a row in MLflow: {names[4]} (model.units=5)"
    assert len(said) == 9
    assert report.failed == {names[2]: "model.units: too small"}


def test_picture() -> None:
    """The picture says which params the best trial has, and where an axis is logarithmic."""
    scores = []
    for i in range(20):
        values = {"rate": 10.0 ** (-i / 5), "units": 5 * (i % 3), "cell": "lstm", "x": "ab"[i % 2]}
        info = RunInfo("a", "1", "me", "FINISHED", i, 1, "active")
        trial = Trial(f"{i}", (), {"params.yaml": values})
        scores.append(Score(float(i), Run(info, RunData()), trial))
    left, right = draw("-loss", scores).axes
    assert (
        right.get_title().replace("\n", " ") == "the best (red): loss=0 with rate=1, units=0, x=a"
    )
    assert [tick.get_text() for tick in right.get_xticklabels()] == [
        "rate (log)",
        "units",
        "x",
        "loss",
    ]
    ticks: dict[int, list[str]] = {}
    for text in right.texts:
        ticks.setdefault(int(cast("Any", text).xy[0]), []).append(text.get_text())
    assert {"1", "0.1", "0.01", "0.001"} <= {*ticks[0]}
    assert [ticks[1], ticks[2]] == [["0", "5", "10"], ["a", "b"]]
    assert all(float(tick).is_integer() for tick in left.get_xticks())
