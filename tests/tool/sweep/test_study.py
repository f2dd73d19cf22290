"""A search is a study of Optuna's, which goes on where it stopped and which its tools can open."""

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException

from dvc_mlflow.errors import ToolError
from dvc_mlflow.project.project import Project
from support.clone import ROOT

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.versions,
    pytest.mark.skipif(not find_spec("optuna"), reason="needs Optuna (make cluster-setup)"),
]

Begin = Callable[..., Any]
RATE, UNITS = "train.learning_rate=log(1e-4,1e-2)", "model.units=interval(3,50)"
KEYS = ("train.learning_rate", "model.units", "model.cell")


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """A function that begins or continues a search over this repository's params."""
    from dvc_mlflow.sweep.study import Search

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    with Project() as project:

        def begin(*space: str, n: int = 6, title: str = "a") -> Search:
            given = Namespace(set_param=[*space], n=n, metric="-loss")
            return Search(project, "c0ffee", given, title)

        yield begin


def trials(title: str) -> list[Any]:
    """Return the trials of a study, as Optuna's own tools see them."""
    import optuna

    return list(optuna.load_study(study_name=title, storage=os.environ["OPTUNA_STORAGE"]).trials)


def test_kinds(begin: Begin) -> None:
    """Each override is a distribution of Optuna's, or fixes a param of all trials."""
    import optuna

    search = begin(RATE, UNITS, "model.cell=lstm,rnn", "train.epochs=7")
    trial = search.ask()
    assert trial.overrides[0] == "train.epochs=7"
    assert len(trial.overrides) == 4
    (stored,) = trials("a")
    rate, units, cell = (stored.distributions[key] for key in KEYS)
    assert rate == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    assert units == optuna.distributions.IntDistribution(3, 50)
    assert cell == optuna.distributions.CategoricalDistribution(("lstm", "rnn"))


def test_goes_on(begin: Begin) -> None:
    """A study has each point once, and those that a killed driver left RUNNING again.

    If two drivers have the same point, the first value stands.
    """
    first = begin(RATE)
    one, two, three = (first.ask() for _ in range(3))
    first.tell(one.name, 0.5)
    first.tell(two.name, None)  # a failed point is not asked for again
    again = begin(RATE)
    assert again.trials.keys() == {one.name, three.name}
    assert again.left == 4
    again.tell(three.name, 0.25)
    first.tell(three.name, 0.75)
    assert [point.value for point in trials("a")] == [0.5, None, 0.25]
    new = [again.ask().name for _ in range(4)]
    assert len({one.name, two.name, three.name, *new}) == 7
    assert again.left == 0
    assert begin(RATE, title="b").trials == {}
    assert begin(RATE, n=8).left == 2


def test_small_space(begin: Begin) -> None:
    """A point that is suggested again does not count, and a small space ends the search."""
    search = begin("model.units=3,4")
    one, two = search.ask(), search.ask()
    assert search.ask() is None
    search.tell(one.name, 1.0)
    search.tell(two.name, 2.0)
    assert search.trials.keys() == {one.name, two.name}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("model.units=3", "nothing in -S varies"),
        ("model.units=cos(0,3)", "Unknown function 'cos'"),
        ("nowhere.yaml:units=interval(0,3)", "nowhere.yaml: "),
    ],
)
def test_bad_search(space: str, words: str, begin: Begin) -> None:
    """What Optuna or DVC cannot use is refused."""
    with pytest.raises((HydraException, ToolError), match=words):
        begin(space)
