"""Drivers of a search share its points, and searches with other names or spaces do not."""

from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from dvc_mlflow.errors import ToolError
from dvc_mlflow.project import Project
from dvc_mlflow.store.store import Store
from dvc_mlflow.sweep.search import Search, Trials
from support.clone import ROOT

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.versions,
    pytest.mark.skipif(not find_spec("optuna"), reason="needs Optuna (make cluster-setup)"),
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow and DVC
]


class Searches:
    """Searches in one store, over this repository's params."""

    def __init__(self, trials: Trials, store: Store) -> None:
        self._trials, self._store = trials, store

    def begin(self, title: str, *space: str, seed: int = 0) -> Search:
        """Begin or continue a search of six trials."""
        given = Namespace(optuna=[*space], set_param=[], trials=6, metric="-loss", seed=seed)
        return Search(given, title, self._trials, self._store)


@pytest.fixture
def searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Searches]:
    """Searches in an empty store."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with Project() as project:
        yield Searches(Trials(project, "c0ffee"), Store(tmp_path, "searches"))


RATE, UNITS = "train.learning_rate=log(1e-4,1e-2)", "model.units=interval(3,50)"


def test_names_apart(searches: Searches) -> None:
    """A search has its own points only, whatever other names begin with its name."""
    longer = searches.begin("lr.more", RATE)
    asked = [longer.ask(dict), longer.ask(dict)]
    assert all(asked)
    assert searches.begin("lr", RATE).trials == {}
    assert searches.begin("lr.more", RATE).trials.keys() == {t.name for t in asked if t}


def test_space(searches: Searches) -> None:
    """A name stands for one space, however that is written."""
    searches.begin("lr", RATE, UNITS)
    searches.begin("lr", UNITS, "train.learning_rate=log(0.0001,0.01)")
    for other in ([RATE], [RATE, "model.units=interval(3,51)"], [UNITS, "train.learning_rate=1,2"]):
        with pytest.raises(ToolError, match=r"--name: 'lr' searches train.learning_rate=log\("):
            searches.begin("lr", *other)


def test_seed(searches: Searches) -> None:
    """The same seed asks for the same points, and another one for others."""
    points = []
    for title, seed in (("a", 0), ("b", 0), ("c", 7)):
        search = searches.begin(title, RATE, seed=seed)
        points.append([trial.name for _ in range(3) if (trial := search.ask(dict))])
    assert points[0] == points[1]
    assert not {*points[0]} & {*points[2]}


def test_missing(searches: Searches) -> None:
    """A point that another driver has asked for is missing until its result is there."""
    mine, theirs = searches.begin("lr", RATE), searches.begin("lr", RATE)
    own, other = mine.ask(dict), theirs.ask(dict)
    assert own
    assert other
    assert mine.missing({}) == [other.name]
    assert mine.missing({other.name}) == []
