"""What a row holds of what DVC declares, with real DVC: TRACKING.md's table, line by line."""

import base64
import getpass
import json
import re
import zlib
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Run
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from dvc_mlflow.keys import allowed_key
from dvc_mlflow.project import Project
from pipelines import Repository, Said, Stages, evaluate, makes, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]

UNCACHED = {"cache": False}
BRING = (
    "not as in dvc.lock; bring them back with dvc checkout, dvc pull or git checkout, "
    "and record again"
)


def ran(path: Path, stages: Stages, *arguments: Any, **more: Any) -> Repository:
    """Make a repository with these stages, and run them."""
    made = repository(path / "project", stages, *arguments, **more)
    made.dvc("repro")
    return made


def recorded(project: Repository) -> tuple[Run, Said]:
    """Record a project that has one row."""
    said = project.record()
    assert said.status == 0
    (row,) = project.rows()
    return row, said


def curve(project: Repository, row: Run, key: str) -> list[tuple[int, float]]:
    """Return the points of a curve in MLflow."""
    history = project.client.get_metric_history(row.info.run_id, key)
    return sorted((point.step, point.value) for point in history)


def lines(said: Said) -> list[str]:
    """Return what the command complained of, line by line."""
    return [line.removeprefix("dvc-mlflow: ") for line in said.error.splitlines()]


# Params


def test_params(tmp_path: Path) -> None:
    """Params have dotted keys; those of another file have its stem before them, of any format."""
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
    project = ran(tmp_path, {"train": stage}, params, files)
    # A result has the params in dvc.lock, whatever stands in the files now.
    project.set({"rate": 2, "model": {"units": 4}})
    project.write({"whole.yaml": "a: 1\n", "x/same.yaml": "k: 2\n"})
    row, said = recorded(project)
    assert row.data.params == {
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
    assert lines(said) == []


def test_params_of_two_files(tmp_path: Path) -> None:
    """A key that two stages read from different files has the stage's name, whatever its value."""
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
        "sub/params.yaml": "rate: 1\nmodel: {units: 3}\nown: 4\n",
    }
    project = ran(tmp_path, stages, {"rate": 1, "model": {"units": 3}}, files)
    project.dvc("repro", "-q", "sub/dvc.yaml")
    row, _ = recorded(project)
    expected = {
        "train.rate": "1",
        "sub/b.rate": "1",
        "train.model.units": "3",
        "a.model.units": "3",
        "own": "4",
    }
    assert row.data.params == expected
    assert row.data.metrics == {"train/loss": 0.25, "a/n": 1, "sub/b/n": 1}
    project.write({"sub/params.yaml": "rate: 7\nmodel: {units: 8}\nown: 4\n"})
    project.dvc("repro", "-q", "-R", ".")
    project.record()
    newest = project.rows()[-1].data.params
    assert newest == {**expected, "sub/b.rate": "7", "a.model.units": "8"}


def test_values_in_commands(tmp_path: Path) -> None:
    """A value that dvc.yaml puts into a command is a param, as in `dvc params show`."""
    stages: Stages = {"fit": {"cmd": "echo ${rate} > model.txt", "outs": ["model.txt"]}}
    stages["fit"]["cmd"] += "; echo '{\"n\": 1}' > n.json"
    stages["fit"]["metrics"] = [{"n.json": UNCACHED}]
    project = ran(tmp_path, stages)
    row, _ = recorded(project)
    assert row.data.params == {"rate": "1"}
    project.set({"rate": 2})
    assert project.record().out.startswith("nothing to do")
    project.dvc("repro", "-q")
    project.record()
    assert [run.data.params["rate"] for run in project.rows()] == ["1", "2"]


def test_items(tmp_path: Path) -> None:
    """The values of a foreach or a matrix are params by the names that dvc.yaml has for them."""

    def item(name: str) -> dict[str, Any]:
        command = f"mkdir -p $(dirname {name}); echo '{{\"n\": 1}}' > {name}.json"
        return {"cmd": command, "metrics": [{f"{name}.json": UNCACHED}]}

    pairs = [{"a": 7, "b": 8}, {"a": 9}]
    stages: Stages = {
        "list": {"foreach": [1, 2.5, "data/a"], "do": {**item("${item}"), "params": ["item"]}},
        "dicts": {"foreach": {"p": {"lr": 3}, "q": {"net": {"size": 4}}}, "do": item("${key}")},
        "pairs": {"foreach": pairs, "do": item("pair-${item.a}")},
        "grid": {"matrix": {"size": [1], "data": ["s", {"t": 2}]}, **item("${key}")},
    }
    project = ran(tmp_path, stages, {"item": 1})
    project.commit("The results")
    committed = int(project.git("log", "-1", "--format=%ct")) * 1000
    project.record()
    found = {row.data.tags["dvc.stage"]: row for row in project.rows()}
    assert {name: row.data.params for name, row in found.items()} == {
        "list@1": {"item": "1", "list.item": "1"},
        "list@2.5": {"item": "1", "list.item": "2.5"},
        "list@data/a": {"item": "1", "list.item": "data/a"},
        "dicts@p": {"key": "p", "item.lr": "3"},
        "dicts@q": {"key": "q", "item.net.size": "4"},
        "grid@1-s": {"key": "1-s", "item.size": "1", "item.data": "s"},
        "grid@1-data1": {"key": "1-data1", "item.size": "1", "item.data.t": "2"},
        "pairs@0": {"key": "0", "item.a": "7", "item.b": "8"},
        "pairs@1": {"key": "1", "item.a": "9"},
    }
    short = project.git("rev-parse", "--short=7", "HEAD")
    assert {row.info.run_name for row in found.values()} == {
        f"{name.partition('@')[2]} main {short}" for name in found
    }
    assert {row.info.start_time for row in found.values()} == {committed}


def test_many_and_odd_params(tmp_path: Path) -> None:
    """MLflow's limits cost a param its key or its end, never the row; each is named in a line."""
    odd = {"a@b": 1, "a#b": 2, "a%b": 3, "/abs": 4, "up/../../x": 5, "..": 6, "..y": 7, "": 8}
    odd |= {"é ü": 9, "x" * 249 + "/" + "y" * 50: 10, "s/": 11}
    whole = {**{f"p{i}": i for i in range(500)}, **odd, "long": "z" * 10_000}
    stage = makes({"m.json": '{"n": 1}'}, params=[{"w.json": None}], metrics=["m.json"])
    project = ran(tmp_path, {"train": stage}, {}, {"w.json": json.dumps(whole)})
    row, said = recorded(project)
    params = row.data.params
    assert {params[f"w.p{i}"] for i in range(500)} == {str(i) for i in range(500)}
    assert len(params) == 500 + len(odd)  # one of the odd ones is left out, and `long` is there
    assert (params["w.a_b"], params["train.w.a_b"]) == ("2", "3")  # in dvc.lock's order
    assert params["w.long"] == "z" * 6000
    assert lines(said) == [
        "param 'train.w.a_b' has two values; one is left out",
        "param 'w.long' has 10000 characters, cut to 6000",
    ]


@given(st.text(st.sampled_from("a./ @~é\n:") | st.characters(), max_size=20), st.integers(1, 300))
def test_every_key_isallowed_key(start: str, times: int) -> None:
    """MLflow takes every key that the tool makes, and a usual one stays as it is."""
    key = allowed_key((start * times)[:400])
    _validate_metric_name(key)
    _validate_param_name(key)
    _validate_tag_name(key)
    assert allowed_key(key) == key
    assert len(key) <= 250
    assert allowed_key("train/model.units - 1") == "train/model.units - 1"


# Metrics


def test_metrics(tmp_path: Path) -> None:
    """Metrics are `<stage>/<key>`, of JSON, YAML and TOML, wherever dvc.yaml declares them."""
    mixed = (
        '{"a": {"b": 1, "c": {"d": 2}}, "t": "text", "l": [1], "f": true, "n": NaN, "i": -Infinity}'
    )
    stages = {
        "one": makes({"m.json": mixed}, metrics=["m.json"]),
        "several": makes(
            {"m1.yaml": "a: 1.5\n", "m2.toml": "[b]\nc = 2\n", "m3": "0"},
            metrics=["m1.yaml", {"m2.toml": UNCACHED}],
            outs=["m3"],
        ),
        "same": makes(
            {"x/m.json": '{"a": 1}', "y/m.json": '{"a": 2}'}, metrics=["x/m.json", "y/m.json"]
        ),
        "kinds": makes({"k.json": '{"a": 8}', "k.yaml": "a: 9"}, metrics=["k.json", "k.yaml"]),
        "folder": makes({"f/x.json": '{"a": 3}', "f/y/z.yaml": "a: 4"}, metrics=["f"]),
        "inside": makes({"out/m.json": '{"a": 5}', "out/large": "x" * 10}, outs=["out"]),
        "alone": makes({"alone.json": "0.5"}, metrics=["alone.json"]),
        "zero": makes({"zero.yaml": "0\n"}, metrics=["zero.yaml"]),
        "bare": makes({"bare.json": '{"a": {"b": 6}}'}, metrics=["bare.json"]),
        "called": makes({"called.json": '{"a": 7}'}, metrics=["called.json"]),
    }
    stages["bare"]["meta"] = {"mlflow": {"prefix": ""}}
    stages["called"]["meta"] = {"mlflow": {"prefix": "valid/"}}
    top = ["m3", "out/m.json", "missing.json"]
    project = ran(tmp_path, stages, metrics=top)
    said = project.record()
    metrics = {k: v for row in project.rows() for k, v in row.data.metrics.items()}
    assert metrics.pop("one/n") != metrics.get("one/n")  # NaN
    assert metrics == {
        "one/a/b": 1,
        "one/a/c/d": 2,
        "one/f": 1,
        "one/i": -1.7976931348623157e308,
        "several/m1/a": 1.5,
        "several/m2/b/c": 2,
        "several/m3/m3": 0,
        "same/x/m/a": 1,
        "same/y/m/a": 2,
        "kinds/k.json/a": 8,
        "kinds/k.yaml/a": 9,
        "folder/x/a": 3,
        "folder/y/z/a": 4,
        "inside/a": 5,
        "alone/alone": 0.5,
        "zero/zero": 0,
        "a/b": 6,
        "valid/a": 7,
    }
    assert {*lines(said)} == {
        "metrics: 'missing.json' is not an output of a stage",
        "metric 'i' of m.json is infinite; MLflow shows ±1.8e308",
        "metrics ['t', 'l'] of m.json are not numbers",
    }


def test_unreadable_metrics(tmp_path: Path) -> None:
    """A metrics file that nobody can parse is named in a line; the rest of the row is complete."""
    bomb = "a0: &a0 {x: 1}\n"
    for i in range(30):
        bomb += f"a{i + 1}: &a{i + 1} {{{', '.join(f'k{j}: *a{i}' for j in range(10))}}}\n"
    files = {
        "good.json": '{"a": 1}',
        "broken.json": "{",
        "broken.yaml": "a: [\n",
        "broken.toml": "a = \n",
        "bomb.yaml": bomb,
        "circle.yaml": "a: &a\n  b: *a\n",
        "deep.json": '{"a":' * 5000 + "1" + "}" * 5000,
        "keys.json": '{"a@b": 1, "a#b": 2, "": 3, "a/b": 4, "a": {"b": 5}}',
        "empty.json": "",
    }
    stages = {"train": {"cmd": "cp made/* .", "metrics": [*files]}}
    made = {f"made/{name}": text for name, text in files.items()}
    project = ran(tmp_path, stages, files=made)
    row, said = recorded(project)
    assert row.data.metrics == {
        "train/good/a": 1,
        "train/keys/a_b": 1,
        "train/keys": 3,
        "train/keys/a/b": 4,
    }
    assert "lock.train" in row.data.tags
    readable = ("good.json", "keys.json")
    told = {re.sub(r"cannot be read: .*", "cannot be read", line) for line in lines(said)}
    assert told == {
        *(f"metrics {name} cannot be read" for name in files if name not in readable),
        "metric 'a#b' of keys.json: the key 'train/keys/a_b' is taken; it is left out",
        "metric 'a/b' of keys.json: the key 'train/keys/a/b' is taken; it is left out",
    }
    assert "metrics bomb.yaml cannot be read: it has more than 10000 keys" in said.error


def test_edited_metrics(tmp_path: Path) -> None:
    """A row gets the metrics in dvc.lock or none: where they are not here, it waits for them."""
    stages = {
        "cached": makes({"a.json": '{"n": 1}'}, metrics=["a.json"]),
        "uncached": makes({"b.json": '{"n": 2}'}, metrics=[{"b.json": UNCACHED}]),
        "folder": makes({"out/c.json": '{"n": 3}'}, outs=["out"]),
    }
    project = ran(tmp_path, stages, metrics=["out/c.json"])
    project.commit("The results")
    project.write({"a.json": '{"n": 99}', "b.json": '{"n": 99}'})
    project.run("rm", "-r", "out")
    said = project.record()
    found = {row.data.tags["dvc.stage"]: row for row in project.rows()}
    # What DVC's cache has is taken from there.
    assert found["cached"].data.metrics == {"cached/n": 1}
    assert found["folder"].data.metrics == {"folder/n": 3}
    assert found["uncached"].data.metrics == {}
    assert "lock.uncached" not in found["uncached"].data.tags
    assert lines(said) == [f"b.json: {BRING}"]
    assert lines(project.record()) == [f"b.json: {BRING}"]
    project.git("checkout", "b.json")
    said = project.record()
    assert "completed" in said.out
    assert len(project.rows()) == 3
    assert found["uncached"].info.run_id in said.out
    assert project.record().out == "nothing to do: MLflow has these 3 results\n"


def test_metrics_that_are_not_here(tmp_path: Path) -> None:
    """A row waits for metrics that only a remote has; the bytes of other outputs are not needed."""
    stages = {
        "train": makes({"a.json": '{"n": 1}', "m": "model"}, metrics=["a.json"], outs=["m"]),
        "folder": makes({"out/c.json": '{"n": 3}'}, outs=["out"]),
        "model": makes({"model": "m"}, outs=["model"]),
    }
    project = ran(tmp_path, stages, metrics=["out/c.json"])
    project.dvc("remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    project.dvc("push", "-q")
    for path in ("a.json", "m", "out", "model", ".dvc/cache"):
        project.run("rm", "-r", path)
    assert {*lines(project.record())} == {f"a.json: {BRING}", f"out: {BRING}"}
    project.dvc("pull", "-q")
    said = project.record()
    assert (said.error, said.out.count(": completed")) == ("", 2)
    metrics = {k: v for row in project.rows() for k, v in row.data.metrics.items()}
    assert metrics == {"train/n": 1, "folder/n": 3}


# Curves


def test_curves(tmp_path: Path) -> None:
    """Tables with one line per step are curves, in any format, with a declared x or without."""
    stages = {
        "csv": makes({"a.csv": "n,step,loss\n9,1,0.5\n8,2,0.25"}, plots=["a.csv"]),
        "x": makes({"x.tsv": "t\tstep\tl\n1\t5\t0.5\n2\t5\tnan\n"}, plots=[{"x.tsv": {"x": "t"}}]),
        "json": makes(
            {"j.jsonl": '{"step": 0, "a": {"b": 1}}\n{"step": 1, "a": {"b": 2}}\n'},
            plots=["j.jsonl"],
        ),
        "two": makes(
            {"loss.csv": "step,loss\n1,3\n", "t/other.csv": "step,loss,f1\n1,4,0.5\n"},
            plots=["loss.csv", {"t/other.csv": UNCACHED}],
        ),
        "bare": makes({"b.csv": "1,0.5\n2,0.25\n"}, plots=[{"b.csv": {"header": False, "x": "0"}}]),
        "top": makes({"d/e.csv": "i,j,y\n3,1,7\n4,1,8\n", "d/f.csv": "y\n1\n"}, outs=["d"]),
        "bom": makes({"bom.csv": "\ufeffstep,loss\r\n1,0.5\r\n"}, plots=[{"bom.csv": UNCACHED}]),
    }
    top = {"run": {"x": {"d/e.csv": "i"}, "y": {"d/e.csv": ["y"]}, "template": "simple"}}
    project = ran(tmp_path, stages, plots=[top, {"d/f.csv": {"x": "missing"}}])
    assert project.record().error == ""
    found = {key: curve(project, row, key) for row in project.rows() for key in row.data.metrics}
    assert repr(found.pop("x/l")) == "[(1, 0.5), (2, nan)]"
    assert found == {
        "csv/n": [(1, 9), (2, 8)],
        "csv/loss": [(1, 0.5), (2, 0.25)],
        "x/step": [(1, 5), (2, 5)],
        "json/a/b": [(0, 1), (1, 2)],
        "two/loss": [(1, 3)],
        "two/other/loss": [(1, 4)],
        "two/other/f1": [(1, 0.5)],
        "bare/1": [(1, 0.5), (2, 0.25)],
        "top/e/y": [(3, 7), (4, 8)],
        "top/e/j": [(3, 1), (4, 1)],
        "bom/loss": [(1, 0.5)],
    }


def test_tables_that_are_no_curves(tmp_path: Path) -> None:
    """Where x does not grow, or DVC draws no line, a table is an artifact; it is never lost."""
    files = {
        "pairs.csv": "actual,predicted\n0,0\n1,2\n1,1\n",
        "grows.csv": "actual,predicted\n0,0\n1,2\n2,1\n",
        "dots.csv": "x,y\n1,2\n2,3\n",
        "words.csv": "word,count\nyes,5\nno,7\n",
        "roc.json": '[{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]',
        "image.png": "png",
        "empty.csv": "",
        "broken.jsonl": "{",
    }
    plots: list[Any] = [{name: UNCACHED} for name in files]
    plots[0] = {"pairs.csv": {"x": "actual", "y": "predicted"}}
    plots[1] = {"grows.csv": {"template": "confusion", "x": "actual", "y": "predicted"}}
    plots[2] = {"dots.csv": {"template": "scatter", "x": "x", "y": "y"}}
    project = ran(tmp_path, {"train": makes(files, plots=plots)})
    row, said = recorded(project)
    assert (row.data.metrics, said.error) == ({}, "")
    assert project.artifacts(row) == sorted(files)
    place = mlflow.artifacts.download_artifacts(
        run_id=row.info.run_id, tracking_uri=f"sqlite:///{project.path}/mlflow.db"
    )
    assert {name: Path(place, name).read_text() for name in files} == files


LIVE = {
    "dvclive/metrics.json": '{"train": {"loss": 0.25}, "step": 2, "best": 0.2}',
    "dvclive/plots/metrics/train/loss.tsv": "step\tloss\n0\t0.5\n1\t0.3\n2\t0.25\n",
    "dvclive/plots/metrics/best.tsv": "timestamp\tstep\tbest\n17\t0\t0.1\n18\t1\t0.3\n",
    "dvclive/plots/sklearn/cm.json": '[{"actual": "a", "predicted": "b"}]',
    "dvclive/plots/images/a/0.png": "png",
}


@pytest.mark.parametrize("beside", [False, True], ids=["top", "beside"])
def test_dvclive(tmp_path: Path, beside: bool) -> None:
    """DVCLive's folder: its curves, its final metrics at their last steps, its plots."""
    start = "" if beside else "dvclive/"
    shown = {
        "metrics": [f"{start}metrics.json"],
        "plots": [
            {f"{start}plots/metrics": {"x": "step"}},
            {f"{start}plots/sklearn/cm.json": {"template": "confusion", "x": "actual"}},
            f"{start}plots/images",
        ],
    }
    # DVC reads no dvc.yaml in an output, so the outputs are in the folder that has one.
    outs = ["dvclive/metrics.json", "dvclive/plots"] if beside else ["dvclive"]
    files = {"dvclive/dvc.yaml": json.dumps(shown)} if beside else {}
    stages = {"train": makes(LIVE, outs=outs)}
    project = ran(tmp_path, stages, files=files, **({} if beside else shown))
    project.run("rm", "-r", *outs)  # DVC's cache has them
    row, said = recorded(project)
    assert said.error == ""
    assert row.data.metrics == {"train/train/loss": 0.25, "train/step": 2, "train/best": 0.2}
    assert curve(project, row, "train/train/loss") == [(0, 0.5), (1, 0.3), (2, 0.25)]
    assert curve(project, row, "train/best") == [(0, 0.1), (1, 0.2), (1, 0.3)]
    assert {name for name in LIVE if "/sklearn/" in name or "/images/" in name} <= {
        *project.artifacts(row)
    }
    assert columns(project, row)["selectedColumns"][:3] == [
        "metrics.`train/train/loss`",
        "metrics.`train/step`",
        "metrics.`train/best`",
    ]


def columns(project: Repository, row: Run) -> dict[str, Any]:
    """Return what the table of a row's experiment shows, from the tag where MLflow keeps it."""
    experiment = project.client.get_experiment(row.info.experiment_id)
    shared = json.loads(experiment.tags["mlflow.sharedViewState.results"])["state"]
    state = json.loads(zlib.decompress(base64.b64decode(shared.removeprefix("deflate;"))))
    assert isinstance(state, dict)
    return state


@pytest.mark.rest
def test_long_curve(tmp_path: Path) -> None:
    """A curve with 100,000 points is whole."""
    command = "(echo step,loss; seq 1 100000 | sed s/$/,0.5/) > a.csv"
    project = ran(tmp_path, {"train": {"cmd": command, "plots": ["a.csv"]}})
    row, _ = recorded(project)
    assert len(curve(project, row, "train/loss")) == 100_000


# Artifacts


def test_artifacts(tmp_path: Path) -> None:
    """Small outputs and all plots are artifacts under their own paths; none is outside the row."""
    outside = tmp_path / "absolute.txt"
    files = {"m.json": '{"n": 1}', "d/a b/#ü%.txt": "odd", "d/e": "", "small.bin": "s"}
    stage = makes(
        files,
        outs=["d", "small.bin", "large.bin", "f", {"../x.txt": UNCACHED}, {str(outside): UNCACHED}],
        metrics=["m.json", {"../m.json": UNCACHED}],
        plots=["large.png", "huge.csv"],
    )
    large = (
        "; head -c 1000001 /dev/zero | tee large.png > large.bin; mkdir f; cp large.bin m.json f"
    )
    large += "; truncate -s 51M huge.csv"
    stage["cmd"] += f"{large}; cp m.json ../; echo x > ../x.txt; echo x > {outside}"
    project = ran(tmp_path, {"train": stage})
    row, said = recorded(project)
    assert project.artifacts(row) == ["d/a b/#ü%.txt", "d/e", "large.png", "m.json", "small.bin"]
    assert row.data.metrics == {"train/m/n": 1, "train/_/m/n": 1}
    assert lines(said) == ["huge.csv has more than 50 MB; it is left out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "absolute.txt",
        "m.json",
        "project",
        "x.txt",
    ]


# Tags and data sets


def load(row: Run, name: str) -> str:
    """Return the text that the source of one of a row's data sets loads."""
    (dataset,) = [i.dataset for i in row.inputs.dataset_inputs if i.dataset.name == name]
    return Path(mlflow.data.get_source(dataset).load()).read_text()


def md5s(project: Repository) -> dict[str, str]:
    """Return the md5s of all files in dvc.lock, by path."""
    entries = re.findall(r"path: (\S+)\n\s+hash: md5\n\s+md5: (\S+)", project.lock)
    return dict(entries)


def test_data_sets(tmp_path: Path) -> None:
    """Inputs load the bytes with the md5 in dvc.lock, whatever stands there now, or fail."""
    stages: Stages = {
        "prepare": makes({"d/x.txt": "x\n", "d/y.txt": "y\n"}, deps=["code.sh"], outs=["d"]),
        "train": {
            "cmd": "cat raw.txt in.git.txt d/x.txt > model.txt; echo '{\"n\": 1}' > m.json",
            "deps": ["raw.txt", "in.git.txt", "d/x.txt", "d", "code.sh"],
            "outs": ["model.txt"],
            "metrics": [{"m.json": UNCACHED}],
            "meta": {"mlflow": {"data": ["in.git.txt", "not.there.txt"]}},
        },
        "a": evaluate("a", "model.txt", "folder"),
    }
    files = {"in.git.txt": "git\n", "code.sh": "", "folder/raw2.txt": "2\n"}
    project = ran(tmp_path, stages, {"a": 1}, files, data=["raw.txt", "folder"])
    known = md5s(project)
    project.write({"raw.txt": "changed\n", "d/x.txt": "changed\n", "in.git.txt": "changed\n"})
    project.run("rm", "model.txt")
    row, said = recorded(project)
    problem = "dvc.yaml: stages.train.meta.mlflow.data: 'not.there.txt' is not a dep of the stage"
    assert lines(said) == [problem]
    inputs = row.inputs.dataset_inputs
    found = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in inputs}
    assert found == {
        "raw.txt": (known["raw.txt"], "train"),
        "in.git.txt": (known["in.git.txt"], "train"),
        "d/x.txt": (known["d/x.txt"], "train"),
        "d": (known["d"], "train"),
        "model.txt": (known["model.txt"], "a"),
        "folder": (known["folder"], "a"),
    }
    outputs = {key.removeprefix("md5."): v for key, v in row.data.tags.items() if "md5." in key}
    assert outputs == {name: known[name] for name in ("d", "model.txt", "m.json", "a.json")}
    assert load(row, "raw.txt") == "1\n"
    assert load(row, "d/x.txt") == "x\n"
    assert load(row, "model.txt") == "1\ngit\nx\n"
    assert [file["relpath"] for file in json.loads(load(row, "folder"))] == ["raw2.txt"]
    project.run("rm", "-rf", ".dvc/cache")
    for name in (*found,):
        with pytest.raises((mlflow.MlflowException, OSError)):
            load(row, name)


def test_address_of_data(tmp_path: Path) -> None:
    """The source of a data set is its file in the default remote, if MLflow can read that."""
    project = repository(tmp_path / "project", {"train": train("raw.txt")})
    file, found = "files/md5/b0/26324c", {}
    for url in (
        "s3://bucket/some/",
        "https://example.org/d",
        "https://me:secret@example.org/d",
        "ssh://example.org/d",
        "../remote",
    ):
        remote = f"[core]\n    remote = there\n['remote \"there\"']\n    url = {url}\n"
        project.write({".dvc/config": remote})
        with chdir(project.path), Project() as opened:
            found[url] = opened.address("b026324c")
    assert found == {
        "s3://bucket/some/": ("s3", f"s3://bucket/some/{file}"),
        "https://example.org/d": ("http", f"https://example.org/d/{file}"),
        "https://me:secret@example.org/d": ("local", f"{project.path}/.dvc/cache/{file}"),
        "ssh://example.org/d": ("local", f"{project.path}/.dvc/cache/{file}"),
        "../remote": ("local", f"{project.path}/remote/{file}"),
    }


# Models


def loader(text: str, mark: Path) -> str:
    """Return a module that loads a model, and leaves a mark when it is imported."""
    return f"""
from pathlib import Path

Path({str(mark)!r}).touch()

class Model:
    def __init__(self, text):
        self.text = text

    def predict(self, data, params=None):
        return [f"{text} {{self.text}} {{x}}" for x in data["x"]]

def _load_pyfunc(path):
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return Model("+".join(file.read_text().strip() for file in files))
"""


def model_ids(row: Run) -> list[str]:
    """Return the ids of a row's models."""
    outputs = row.outputs.model_outputs if row.outputs else []
    return [output.model_id for output in outputs]


def predictions(project: Repository, row: Run) -> list[str]:
    """Return what a row's only model, as MLflow loads it, predicts for x = 1."""
    (model_id,) = model_ids(row)
    place = project.client.get_logged_model(model_id).artifact_location
    return [*map(str, mlflow.pyfunc.load_model(place).predict({"x": [1]}))]


SIGNATURE = {
    "inputs": [{"type": "long", "name": "x", "required": True}],
    "outputs": [{"type": "string", "required": True}],
}


def test_model(tmp_path: Path) -> None:
    """A declared model is served with the code of its result; nothing of it is imported before."""
    mark = tmp_path / "imported"
    meta = {
        "loader_module": "greeting.load",
        "code_paths": ["greeting"],
        "pip_requirements": ["six"],
        "signature": SIGNATURE,
    }
    stages = {"train": {**train("raw.txt"), "cmd": "cp raw.txt model.txt; : > curve.csv"}}
    stages["a"] = evaluate("a")
    files = {
        "greeting/load.py": loader("hello", mark),
        "greeting/__pycache__/load.pyc": "compiled",
        "greeting/ignored.txt": "ignored",
        "uv.lock": "version = 1\n",
        ".dvcignore": "ignored.txt\n",
    }
    artifacts = {"greeter": {"path": "model.txt", "type": "model", "meta": meta}}
    project = ran(tmp_path, stages, {"rate": 1, "a": 1}, files, artifacts=artifacts)
    project.commit("The results")
    first, said = recorded(project)
    assert said.error == ""
    (model_id,) = model_ids(first)
    logged = project.client.get_logged_model(model_id)
    package = Path(logged.artifact_location.removeprefix("file://"))
    packed = sorted(p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file())
    assert packed == [
        *("MLmodel", "code/greeting/load.py", "conda.yaml", "data/model.txt"),
        *("python_env.yaml", "requirements.txt"),
    ]
    assert (package / "requirements.txt").read_text() == f"mlflow=={mlflow.__version__}\nsix"
    assert (logged.status, logged.source_run_id) == ("READY", first.info.run_id)
    assert not mark.exists()
    # A second row with that model, and the same code, has the same logged model.
    project.set({"a": 2})
    project.dvc("repro", "-q")
    project.record()
    assert [*map(model_ids, project.rows())] == [[model_id], [model_id]]
    # Other code is another model, though its bytes are the same.
    project.write({"greeting/load.py": loader("good day", mark)})
    project.set({"a": 3})
    project.dvc("repro", "-q")
    project.record()
    ids = {row.data.params["a"]: model_ids(row) for row in project.rows()}
    assert ids["3"] != [model_id]
    assert not mark.exists()
    # Of a commit, the code is the commit's.
    copy = project.copy(tmp_path / "copy")
    copy.record("--rev", "HEAD")
    (of_commit,) = copy.rows()
    assert of_commit.data.params["a"] == "1"
    (other_id,) = model_ids(of_commit)
    other = copy.client.get_logged_model(other_id)
    assert other.tags["dvc.model"] == logged.tags["dvc.model"]
    code = Path(other.artifact_location.removeprefix("file://"), "code/greeting/load.py")
    assert code.read_text() == loader("hello", mark)
    assert not mark.exists()
    assert predictions(project, first) == ["hello 1 1"]
    assert mark.exists()


def test_model_of_a_stage(tmp_path: Path) -> None:
    """A stage can say the same of an output, also of a folder, and of each item of a foreach."""
    model = {
        "path": "model",
        "loader_module": "loaders",
        "code_paths": ["../src/loaders.py"],
        "pip_requirements": "needs.txt",
    }
    do = {
        "wdir": "w",
        "cmd": "mkdir -p ${item}/model; echo ${item} > ${item}/model/a; echo b > ${item}/model/b",
        "outs": ["${item}/model"],
        "meta": {"mlflow": {"model": {**model, "path": "${item}/model"}}},
    }
    files = {
        "src/loaders.py": loader("folder", tmp_path / "mark"),
        "w/needs.txt": "# what it needs\n--index-url https://example.org\nsix==1.17.0 \\\n"
        "    --hash=sha256:0 # pinned\n\n-r ../other.txt\nnumpy ; python_version > '3'\r\n",
    }
    project = ran(tmp_path, {"fit": {"foreach": ["p", "q"], "do": do}}, {}, files)
    project.run("rm", "-r", "w/p", "w/q")  # DVC's cache has them
    said = project.record()
    assert said.error == ""
    rows = {row.data.tags["dvc.stage"]: row for row in project.rows()}
    assert predictions(project, rows["fit@p"]) == ["folder p+b 1"]
    assert predictions(project, rows["fit@q"]) == ["folder q+b 1"]
    (model_id,) = model_ids(rows["fit@p"])
    place = Path(project.client.get_logged_model(model_id).artifact_location[len("file://") :])
    required = (place / "requirements.txt").read_text().splitlines()
    assert required == [
        f"mlflow=={mlflow.__version__}",
        "six==1.17.0",
        'numpy; python_version > "3"',
    ]


@pytest.mark.parametrize("revision", [[], ["--rev", "HEAD"]])
def test_code_beside_a_nested_project(tmp_path: Path, revision: list[str]) -> None:
    """A project in a folder serves its model with code and requirements from elsewhere in git."""
    outer = repository(tmp_path / "project", {})
    outer.write({"shared/beside.py": loader("beside", tmp_path / "mark"), "needs.txt": "six\n"})
    model = {"loader_module": "beside", "code_paths": ["../shared/beside.py"]}
    model["pip_requirements"] = "../needs.txt"
    fit = {"cmd": "echo 1 > model.txt", "outs": ["model.txt"], "meta": {"mlflow": {"model": model}}}
    outer.write({"inner/dvc.yaml": json.dumps({"stages": {"fit": fit}})})
    (outer.path / "inner" / ".gitignore").write_text("/model.txt\n")
    inner = Repository(outer.path / "inner")
    inner.dvc("init", "-q", "--subdir")
    inner.dvc("repro", "-q")
    outer.commit("A nested project")
    said = outer.record(*revision, folder="inner")
    assert said.error == ""
    (row,) = outer.rows()
    assert predictions(outer, row) == ["beside 1 1"]


def test_model_that_mlflow_has_saved(tmp_path: Path) -> None:
    """A folder with an MLmodel file is logged as it is."""
    made = tmp_path / "made"
    (tmp_path / "plain.py").write_text(loader("saved", tmp_path / "mark"))
    (tmp_path / "data.txt").write_text("it")
    mlflow.pyfunc.save_model(
        str(made),
        loader_module="plain",
        data_path=str(tmp_path / "data.txt"),
        code_paths=[str(tmp_path / "plain.py")],
        pip_requirements=["six"],
        metadata={"mine": 1},
    )
    stages = {"train": {"cmd": f"cp -r {made} saved", "outs": ["saved"]}}
    project = ran(tmp_path, stages, artifacts={"m": {"path": "saved", "type": "model"}})
    row, said = recorded(project)
    assert said.error == ""
    assert predictions(project, row) == ["saved it 1"]
    (model_id,) = model_ids(row)
    logged = project.client.get_logged_model(model_id)
    described = Path(logged.artifact_location.removeprefix("file://"), "MLmodel").read_text()
    assert f"model_id: {model_id}" in described
    assert "mine: 1" in described
    assert not (project.path / "saved" / "MLmodel").is_symlink()


def test_models_that_cannot_be_served(tmp_path: Path) -> None:
    """Each model that cannot be served is named in one line; the row is complete without it."""
    (tmp_path / "secret.py").write_text("SECRET = 1\n")
    good = {"loader_module": "m", "code_paths": ["m.py"], "pip_requirements": ["six"]}
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "bare": ({"loader_module": "m"}, "pip_requirements: must list the packages"),
        "outside": (
            {**good, "code_paths": ["../secret.py"]},
            "code_paths: must be in",
        ),
        "option": ({**good, "pip_requirements": ["-r /etc/passwd"]}, "without options, or a path"),
        "list": ({**good, "pip_requirements": "/etc/passwd"}, "must be in the repository"),
        "link": ({**good, "code_paths": ["link.py"]}, "code_paths: 'link.py' is not there"),
        "links": ({**good, "code_paths": ["links"]}, "code_paths: 'links' is not there"),
        "listed": ({**good, "pip_requirements": "link.py"}, "'link.py' is not there"),
        "missing": ({**good, "code_paths": ["n.py"]}, "code_paths: 'n.py' is not there"),
        "shape": ({**good, "signature": {"inputs": ["x"]}}, "model shape.txt: "),
        "kind": ({**good, "signature": {"inputs": [{"type": "no"}]}}, "model kind.txt: "),
        "lost": (good, "model lost.txt: its bytes are neither here nor in DVC's cache"),
        "typo": ({**good, "path": "typo"}, "path: must be an output of the stage; received 'typo'"),
    }
    stages = {
        name: makes({f"{name}.txt": name}, outs=[f"{name}.txt"], meta={"mlflow": {"model": model}})
        for name, (model, _) in wrong.items()
    }
    stages["broken"] = makes({"broken/MLmodel": "a: ["}, outs=["broken"])
    stages["broken"]["meta"] = {"mlflow": {"model": {}}}
    wrong["broken"] = {}, "model broken: MLmodel: "
    project = repository(tmp_path / "project", stages, {}, {"m.py": "", "links/.keep": ""})
    (project.path / "link.py").symlink_to(tmp_path / "secret.py")
    (project.path / "links" / "secret.py").symlink_to(tmp_path / "secret.py")
    (project.path / "links" / ".keep").unlink()
    project.dvc("repro")
    lost = (project.path / "lost.txt").read_bytes()
    for file in [*(project.path / ".dvc" / "cache").rglob("*"), project.path / "lost.txt"]:
        if file.is_file() and file.read_bytes() == lost:
            file.unlink()
    said = project.record("--stages", ",".join(stages))
    for name, (_, line) in wrong.items():
        starts = (f"model {name}.txt: ", f"model {name}: ", f"dvc.yaml: stages.{name}.")
        found = [each for each in lines(said) if each.startswith(starts)]
        assert len(found) == 1, (name, lines(said))
        assert line in found[0], found
    assert len(lines(said)) == len(wrong)
    rows = project.rows()
    assert [model_ids(row) for row in rows] == [[]] * len(wrong)
    assert all(f"lock.{row.data.tags['dvc.stage']}" in row.data.tags for row in rows)
    assert project.client.search_logged_models([rows[0].info.experiment_id]) == []


def test_model_kept_in_git(tmp_path: Path) -> None:
    """Of a commit, a model that git keeps is the commit's, as its code is."""
    model = {"path": "model.txt", "loader_module": "by_git", "code_paths": ["by_git.py"]}
    stage = {**train("raw.txt"), "outs": [{"model.txt": UNCACHED}]}
    stage["meta"] = {"mlflow": {"model": {**model, "pip_requirements": ["six"]}}}
    files = {"by_git.py": loader("git", tmp_path / "mark")}
    project = ran(tmp_path, {"train": stage}, {"rate": 1}, files)
    project.commit("The results")
    project.write({"model.txt": "other", "by_git.py": "raise SystemExit"})
    said = project.record("--rev", "HEAD")
    (row,) = project.rows()
    assert said.error == ""
    assert predictions(project, row) == ["git 1\nrate: 1 1"]


# meta.mlflow


def test_settings(tmp_path: Path) -> None:
    """A stage names its experiment and the table's columns, best first."""
    meta = {"mlflow": {"experiment": "mine", "columns": ["-metrics.train/loss", "params.rate"]}}
    stages = {"train": {**train("raw.txt"), "meta": meta}, "a": evaluate("a")}
    stages["a"]["meta"] = {"mlflow": {"columns": ["params.rate", "metrics.a/score"]}}
    project = ran(tmp_path, stages, {"rate": 1, "a": 1})
    row, said = recorded(project)
    assert said.out.startswith("mine: added ")
    assert project.client.get_experiment(row.info.experiment_id).name == "mine"
    assert columns(project, row) == {
        "selectedColumns": ["metrics.`train/loss`", "params.`rate`", "metrics.`a/score`"],
        "searchFilter": "",
        "orderByKey": "metrics.`train/loss`",
        "orderByAsc": True,
    }


def test_default_columns_grow(tmp_path: Path) -> None:
    """The table shows a stage's scores once it has run, though its model was recorded before."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q", "train")
    row, _ = recorded(project)
    assert columns(project, row)["selectedColumns"] == ["params.`rate`"]
    project.dvc("repro", "-q")
    project.record()
    shown = ["metrics.`a/score`", "params.`rate`", "params.`a`"]
    assert columns(project, row)["selectedColumns"] == shown


def test_default_columns(tmp_path: Path) -> None:
    """Without a choice the table shows the final metrics and the params; a choice stays."""
    files = {"m.json": '{"f1": 0.5, "loss": 2}', "a.csv": "step,cost\n0,1\n1,2\n"}
    stages = {"train": makes(files, params=["rate", "units"], metrics=["m.json"], plots=["a.csv"])}
    project = ran(tmp_path, stages, {"rate": 1, "units": 2})
    row, _ = recorded(project)
    shown = ["metrics.`train/f1`", "metrics.`train/loss`", "params.`rate`", "params.`units`"]
    assert columns(project, row)["selectedColumns"] == shown
    project.client.set_experiment_tag(
        row.info.experiment_id, "mlflow.sharedViewState.results", "somebody's"
    )
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.record()
    experiment = project.client.get_experiment(row.info.experiment_id)
    assert experiment.tags["mlflow.sharedViewState.results"] == "somebody's"


def test_wrong_settings(tmp_path: Path) -> None:
    """What is wrong in dvc.yaml is said in one line each; everything else is recorded."""
    meta = {"mlflow": {"colums": [], "prefix": 5, "experiment": "mine", "open": "last"}}
    stages = {"train": {**train("raw.txt"), "meta": meta}, "a": evaluate("a")}
    stages["a"]["meta"] = {"mlflow": "text"}
    stages["b"] = {"foreach": ["x", "y"], "do": evaluate("${item}", "model.txt")}
    stages["b"]["do"]["meta"] = {"mlflow": {"unknown": 1}}
    artifacts = {"m": {"path": "nowhere", "type": "model", "meta": {"loader_modul": "x"}}}
    params = {"rate": 1, "a": 1, "x": 1, "y": 1}
    project = ran(tmp_path, stages, params, artifacts=artifacts)
    row, said = recorded(project)
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/x/score": 1, "b/y/score": 1}
    assert project.client.get_experiment(row.info.experiment_id).name == "mine"
    known = "known are experiment, prefix, columns, data, open, promote, model"
    start = "dvc.yaml: stages."
    assert {*lines(said)} == {
        f"{start}train.meta.mlflow.colums: unknown key; {known}",
        f"{start}train.meta.mlflow.prefix: must be text, or empty for no prefix; received 5",
        f"{start}train.meta.mlflow.open: must be `first`; received 'last'",
        f"{start}a.meta.mlflow: must be a mapping; received 'text'",
        f"{start}b.meta.mlflow.unknown: unknown key; {known}",
        "dvc.yaml: artifacts.m.meta.loader_modul: unknown key; did you mean loader_module?",
    }
    assert len(lines(said)) == 6


# Names, tags and times


def test_names(tmp_path: Path) -> None:
    """A row is named after changed params, or else after branch and commit; git says the rest."""
    stages = {
        "train": {**train("raw.txt"), "params": ["rate", "model", {"other.yaml": ["n.rate"]}]}
    }
    params = {"rate": 1, "model": {"units": 2, "cell": "gru"}}
    project = ran(tmp_path, stages, params, {"other.yaml": "n:\n  rate: 1\n  m: 1\n"})
    project.commit("The results")
    project.git("config", "user.name", "Somebody else")
    project.git("remote", "add", "origin", "https://me:secret@example.org/repository")
    project.git("commit", "-q", "--allow-empty", "-m", "Nothing")
    commit = project.git("rev-parse", "HEAD^")
    project.write({"raw.txt": "1\n\n"})  # the result is that of its own commit all the same
    row, _ = recorded(project)
    assert row.info.run_name == f"main {commit[:7]}"
    assert {key: row.data.tags.get(f"mlflow.source.{key}") for key in GIT} == {
        "git.commit": commit,
        "git.branch": "main",
        "git.dirty": "false",
        "git.repoURL": "https://***@example.org/repository",
        "type": "LOCAL",
        "name": stages["train"]["cmd"],
    }
    assert row.data.tags["mlflow.user"] == "Tester"
    time = int(project.git("log", "-1", "--format=%ct", "HEAD^")) * 1000
    assert (row.info.start_time, row.info.end_time) == (time, time)
    # What is not committed is named by what has changed in params, as short as can be.
    project.set({"rate": 2, "model": {"units": 3, "cell": "gru"}})
    project.write({"other.yaml": "n:\n  rate: 5\n  m: 2\n"})
    project.dvc("repro", "-q")
    project.record()
    (row,) = [r for r in project.rows() if r.data.params["rate"] == "2"]
    assert row.info.run_name == "rate=2 units=3 other.n.rate=5"
    head = project.git("rev-parse", "HEAD")
    assert (row.data.tags["mlflow.source.git.commit"], row.data.tags["mlflow.user"]) == (
        head,
        getpass.getuser(),
    )
    assert row.data.tags["mlflow.source.git.dirty"] == "true"  # raw.txt is committed otherwise
    written = (project.path / "dvc.lock").stat().st_mtime
    assert row.info.start_time == int(written * 1000)


GIT = ("git.commit", "git.branch", "git.dirty", "git.repoURL", "type", "name")


def test_experiment(tmp_path: Path) -> None:
    """A row of DVC's experiment has its name and its commit."""
    project = ran(tmp_path, {"train": train("raw.txt")}, {"rate": 1})
    project.commit("The results")
    project.dvc("exp", "run", "-q", "-n", "mild-trial", "-S", "rate=7")
    project.git("checkout", "-q", "--", ".")
    project.record("--rev", "mild-trial")
    (row,) = project.rows()
    commit = project.git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/mild-trial")
    assert row.data.params == {"rate": "7"}
    assert row.info.run_name == f"mild-trial {commit[:7]}"
    tags = row.data.tags
    assert (tags["dvc.exp_name"], tags["mlflow.source.git.commit"]) == ("mild-trial", commit)
    assert "mlflow.source.git.branch" not in tags
    time = int(project.git("log", "-1", "--format=%ct", commit)) * 1000
    assert row.info.start_time == time
    project.git("tag", "v1")
    for name in ("main", "v1", "HEAD"):
        project.record("--rev", name)
        (head,) = [each for each in project.rows() if each.data.params == {"rate": "1"}]
        assert head.info.run_name == f"main {project.git('rev-parse', '--short=7', 'HEAD')}"
    assert len(project.rows()) == 2


@pytest.mark.parametrize("history", ["no git", "no commit", "no branch"])
def test_names_without_history(tmp_path: Path, history: str) -> None:
    """Without git, before the first commit and on no branch, a row has a name all the same."""
    project = repository(tmp_path / "project", {"train": train("raw.txt")}, {"rate": 1})
    name = "rate=1"
    if history == "no branch":
        project.git("checkout", "-q", "--detach")
        name = project.git("rev-parse", "--short=7", "HEAD")
    else:
        project.run("rm", "-rf", ".git")
        if history == "no git":
            project.write({".dvc/config": "[core]\n    no_scm = true\n"})
        else:
            project.git("init", "-q", "-b", "main")
    project.dvc("repro")
    row, said = recorded(project)
    assert (row.info.run_name, said.error) == (name, "")
    assert ("mlflow.source.git.commit" in row.data.tags) == (history == "no branch")
