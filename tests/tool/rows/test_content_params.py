"""Every param that a result has read is in its row, under a key that MLflow accepts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from dvc_mlflow.pipeline.row import allowed_key
from dvc_mlflow.pipeline.tags import STAGE
from support.locked import locked, read, row, trained
from support.pipelines import Stages, makes, train
from support.rebuilding import UNCACHED, lines, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


def test_params(tmp_path: Path) -> None:
    """Params have dotted keys; those of another file, whatever its format, start with its stem."""
    stage = makes(
        {"m.json": '{"n": 1}'},
        params=[
            "rate",
            "model",
            {"conf.toml": ["opt"]},
            {"conf.json": ["n"]},
            {"src/settings.py": ["WIDTH", "Net.depth"]},
            {"whole.yaml": None},
            {"x/same.yaml": ["k"]},
            {"y/same.yaml": ["k"]},
        ],
        metrics=["m.json"],
    )
    files = {
        "conf.toml": "[opt]\nname = 'sgd'\nbetas = [0.9, 0.99]\n",
        "conf.json": '{"n": 25.0, "unread": 1}',
        "src/settings.py": "WIDTH = 3\n\nclass Net:\n    depth = 2\n",
        "whole.yaml": "a: null\nb:\n  c: {}\n  d: [1, 2.0, x]\n  e: true\nf: ''\n",
        "x/same.yaml": "k: 1\n",
        "y/same.yaml": "k: 1\n",
    }
    params = {"rate": 1e-05, "model": {"units": 3, "cell": "gru"}, "unread": 1}
    files["m.json"] = '{"n": 1}'
    project = locked(tmp_path / "project", {"train": stage}, params, files)
    # A result's params are those in dvc.lock, whatever the files now contain.
    project.set({"rate": 2, "model": {"units": 4}})
    project.write({"whole.yaml": "a: 1\n", "x/same.yaml": "k: 2\n"})
    assert row(project).params == {
        "rate": "1e-05",
        "model.units": "3",
        "model.cell": "gru",
        "conf.opt.name": "sgd",
        "conf.opt.betas": "[0.9, 0.99]",
        "conf.n": "25",
        "settings.WIDTH": "3",
        "settings.Net.depth": "2",
        "whole.a": "None",
        "whole.b.c": "{}",
        "whole.b.d": "[1, 2, 'x']",
        "whole.b.e": "True",
        "whole.f": "",
        "x/same.yaml.k": "1",
        "y/same.yaml.k": "1",
    }


def test_params_of_two_files(tmp_path: Path) -> None:
    """A key that two stages read from different files is prefixed with the stage's name."""
    stages = {
        "train": {**train("raw.txt"), "params": ["rate", "model.units"]},
        "a": makes(
            {"a.json": '{"n": 1}'},
            deps=["model.txt"],
            params=[{"sub/params.yaml": ["model", "own"]}],
            metrics=["a.json"],
        ),
    }
    sub = makes({"b.json": '{"n": 1}'}, deps=["../model.txt"], params=["rate"], metrics=["b.json"])
    files = {
        "sub/dvc.yaml": json.dumps({"stages": {"b": sub}}),
        "sub/params.yaml": "rate: 7\nmodel: {units: 8}\nown: 4\n",
    }
    files |= {**trained(), "a.json": '{"n": 1}', "sub/b.json": '{"n": 1}'}
    project = locked(tmp_path / "project", stages, {"rate": 1, "model": {"units": 3}}, files)
    found = row(project)
    assert found.params == {
        "train.rate": "1",
        "sub/b.rate": "7",
        "train.model.units": "3",
        "a.model.units": "8",
        "own": "4",
    }
    assert found.metrics == {"train/loss": 0.25, "a/n": 1, "sub/b/n": 1}


def test_items(tmp_path: Path) -> None:
    """The values of a foreach or a matrix are params, under the names that dvc.yaml gives them.

    A value that it puts into a command is a param, too, as in `dvc params show`.
    """

    def item(name: str) -> dict[str, Any]:
        return {"cmd": f"python run.py {name}", "metrics": [{f"{name}.json": UNCACHED}]}

    stages: Stages = {
        "list": {"foreach": [1, 2.5, "data/a"], "do": {**item("${item}"), "params": ["item"]}},
        "dicts": {"foreach": {"p": {"lr": 3}, "q": {"net": {"size": 4}}}, "do": item("${key}")},
        "pairs": {"foreach": [{"a": 7, "b": 8}, {"a": 9}], "do": item("pair-${item.a}")},
        "alone": item("n-${item}"),
        "grid": {"matrix": {"size": [1], "data": ["s", {"t": 2}]}, **item("${key}")},
    }
    names = ["1", "2.5", "data/a", "p", "q", "pair-7", "pair-9", "n-1", "1-s", "1-data1"]
    files = {f"{name}.json": '{"n": 1}' for name in names}
    project = locked(tmp_path / "project", stages, {"item": 1}, files)
    found = {row.tags[STAGE]: row.params for row in read(project).rows}
    assert found == {
        "list@1": {"item": "1", "list.item": "1"},
        "list@2.5": {"item": "1", "list.item": "2.5"},
        "list@data/a": {"item": "1", "list.item": "data/a"},
        "dicts@p": {"key": "p", "item.lr": "3"},
        "dicts@q": {"key": "q", "item.net.size": "4"},
        "grid@1-s": {"key": "1-s", "item.size": "1", "item.data": "s"},
        "grid@1-data1": {"key": "1-data1", "item.size": "1", "item.data.t": "2"},
        "alone": {"item": "1"},
        "pairs@0": {"key": "0", "item.a": "7", "item.b": "8"},
        "pairs@1": {"key": "1", "item.a": "9"},
    }


def test_many_and_odd_params(tmp_path: Path) -> None:
    """A param beyond MLflow's limits is renamed, cut or left out; its row is still recorded."""
    odd = {"a@b": 1, "a#b": 2, "a%b": 3, "/abs": 4, "up/../../x": 5, "..": 6, "..y": 7, "": 8}
    odd |= {"é ü": 9, "x" * 249 + "/" + "y" * 50: 10, "s/": 11}
    whole = {**{f"p{i}": i for i in range(500)}, **odd, "long": "z" * 10_000}
    stage = makes({"m.json": '{"n": 1}'}, params=[{"w.json": None}], metrics=["m.json"])
    files = {"w.json": json.dumps(whole), "m.json": '{"n": 1}'}
    project = locked(tmp_path / "project", {"train": stage}, {}, files)
    project.commit()
    project.add_store()
    found, said = recorded(project)
    params = found.data.params
    assert params == row(project).params
    assert {params[f"w.p{i}"] for i in range(500)} == {str(i) for i in range(500)}
    assert len(params) == 500 + len(odd)  # one of the odd ones is left out, and `long` is there
    assert (params["w.a_b"], params["train.w.a_b"]) == ("2", "3")  # in dvc.lock's order
    assert params["w.long"] == "z" * 6000
    assert lines(said) == [
        "param 'train.w.a_b' has two values; one is left out",
        "param 'w.long' has 10000 characters, cut to 6000",
    ]


@given(st.text(st.sampled_from("a./ @~é\n:") | st.characters(), max_size=20), st.integers(1, 300))
def test_every_key_is_allowed(start: str, times: int) -> None:
    """MLflow accepts every key that the tool makes, and ordinary keys are unchanged."""
    key = allowed_key((start * times)[:400])
    _validate_metric_name(key)
    _validate_param_name(key)
    _validate_tag_name(key)
    assert allowed_key(key) == key
    assert len(key) <= 250
    assert allowed_key("train/model.units - 1") == "train/model.units - 1"
