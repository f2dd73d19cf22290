"""Settings in dvc.yaml are read, and each mistake in them is reported in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvc_mlflow.pipeline.stages import Model, Settings
from dvc_mlflow.project.settings import models_in, settings_of


def settings(given: object) -> tuple[Settings, list[str]]:
    """Return what the tool reads from a stage's `meta.mlflow`."""
    return settings_of({"mlflow": given}, "dvc.yaml: stages.train", "")


def artifact(meta: object) -> tuple[Model, list[str]]:
    """Return the model that the tool reads from `artifacts`."""
    artifacts = {"m": {"path": "m.bin", "type": "model", "meta": meta}}
    (found,), problems = models_in(artifacts, "dvc.yaml", "")
    return found, problems


LOADED = {"loader_module": "load", "pip_requirements": ["numpy"]}

PACKAGES = "must list the packages that loading the model needs"
METRICS = "must be a list of metrics such as [test/score, -test/loss]"


def test_all_settings() -> None:
    """All settings of a stage are read; paths are relative to its working directory."""
    meta = {
        "mlflow": {
            "experiment": "mine",
            "prefix": "",
            "columns": ["-metrics.test/loss", "params.rate"],
            "data": ["raw.txt", "../b/raw.txt"],
            "promote": ["test/score", "-test/loss"],
        },
        "owner": "me",
    }
    found, problems = settings_of(meta, "dvc.yaml: stages.train", "a")
    assert problems == []
    assert found == Settings(
        "mine",
        "",
        ["-metrics.test/loss", "params.rate"],
        ("a/raw.txt", "b/raw.txt"),
        ["test/score", "-test/loss"],
    )


@pytest.mark.parametrize("meta", [None, {}, {"owner": "me"}, "text", {"mlflow": None}])
def test_no_settings(meta: object) -> None:
    """All settings are optional, and the rest of `meta` is the user's."""
    assert settings_of(meta, "dvc.yaml: stages.train", "") == (Settings(), [])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("text", ": must be a mapping; received 'text'"),
        ({"experiment": 5}, ".experiment: must be a name; received 5"),
        ({"experiment": "x" * 501}, f".experiment: must be a name; received '{'x' * 99}"),
        ({"experiment": " "}, ".experiment: must be a name; received ' '"),
        ({"prefix": None}, ".prefix: must be text, or empty for no prefix; received None"),
        ({"data": "raw.txt"}, ".data: must be a list of paths; received 'raw.txt'"),
        ({"data": ["/etc/passwd"]}, ".data: must be in the repository; received '/etc/passwd'"),
        ({"data": ["a/../../b"]}, ".data: must be in the repository; received 'a/../../b'"),
        ({"promote": "test/loss"}, f".promote: {METRICS}; received 'test/loss'"),
        ({"promote": ["-metrics.loss"]}, f".promote: {METRICS}; received ['-metrics.loss']"),
    ],
)
def test_wrong_settings(given: object, problem: str) -> None:
    """Each mistake is left out, and reported in one line with key, rule and value."""
    found, problems = settings(given)
    assert problems == [f"dvc.yaml: stages.train.meta.mlflow{problem}"]
    assert found == Settings()


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        ({"loader_module": "load"}, f"pip_requirements: {PACKAGES}; received None"),
        (
            {**LOADED, "code_paths": ["../src"]},
            "code_paths: must be in the repository; received '../src'",
        ),
        (
            {**LOADED, "pip_requirements": "/etc/passwd"},
            "pip_requirements: must be in the repository; received '/etc/passwd'",
        ),
    ],
)
def test_wrong_loaders(meta: object, problem: str) -> None:
    """A model that would be loaded wrongly is not loaded at all, and one line says why."""
    assert artifact(meta) == (
        Model("m.bin", name="m"),
        [f"dvc.yaml: artifacts.m.meta.{problem}"],
    )


@pytest.mark.parametrize(
    "requirements",
    [["numpy", "-r /etc/passwd"], [" --index-url=x"], ["numpy\n-r x"], ["a\x0b-r x"], 5],
)
def test_options_are_no_requirements(requirements: object) -> None:
    """Options among requirements, which would let MLflow read any file, are refused."""
    found, problems = artifact({**LOADED, "pip_requirements": requirements})
    assert len(problems) == 1
    assert "must be a list of requirements without options, or a path" in problems[0]
    assert found == Model("m.bin", name="m")


def test_model_that_needs_nothing() -> None:
    """A model may declare that it needs no packages."""
    found = artifact({**LOADED, "pip_requirements": []})
    assert found == (Model("m.bin", "load", (), [], name="m"), [])


def test_unknown_settings() -> None:
    """An unknown key is reported with the known ones; the other keys are used."""
    found, problems = settings({"experiment": "mine", "colums": [], 5: 6})
    assert found == Settings("mine")
    known = "known are experiment, prefix, columns, data, record, promote"
    start = "dvc.yaml: stages.train.meta.mlflow"
    assert problems == [
        f"{start}.colums: unknown key; {known}",
        f"{start}.5: unknown key; {known}",
    ]


@pytest.mark.parametrize("columns", [["loss"], "metrics.loss", ["metrics.a", 5], [""], [None]])
def test_wrong_columns(columns: object) -> None:
    """A column must say whether it is a metric or a param."""
    found, problems = settings({"columns": columns})
    assert found == Settings()
    assert len(problems) == 1
    assert "must be a list such as [-metrics.test/loss, params.train.rate]" in problems[0]


def test_artifacts() -> None:
    """`artifacts` of the type model are models, relative to their dvc.yaml; others are not."""
    artifacts = {
        "one": {"path": "m.bin", "type": "model", "meta": {**LOADED, "framework": "none"}},
        "two": {"path": "n.bin", "type": "model"},
        "data": {"path": "d.csv", "type": "dataset", "meta": LOADED},
        "plain": {"path": "p.bin"},
    }
    models, problems = models_in(artifacts, "a/dvc.yaml", "a", "own")
    assert models == [
        Model("a/m.bin", "load", (), ["numpy"], name="own/a:one"),
        Model("a/n.bin", name="own/a:two"),
    ]
    assert problems == []


def test_wrong_artifacts() -> None:
    """A misspelt key of an artifact is reported; other keys of `meta` are the user's."""
    meta = {"loader_modul": "load", "pip_requirments": [], "owner": "me", 5: 6}
    artifacts = {
        "one": {"path": "m.bin", "type": "model", "meta": meta},
        "two": {"path": "../m.bin", "type": "model", "meta": "text"},
        "three": {"path": "n.bin", "type": "model", "meta": {"loader_module": "load"}},
    }
    models, problems = models_in(artifacts, "dvc.yaml", "")
    assert models == [Model("m.bin", name="one"), Model("n.bin", name="three")]
    start = "dvc.yaml: artifacts"
    assert problems == [
        f"{start}.one.meta.loader_modul: unknown key; did you mean loader_module?",
        f"{start}.one.meta.pip_requirments: unknown key; did you mean pip_requirements?",
        f"{start}.two.path: must be in the repository; received '../m.bin'",
        f"{start}.three.meta.pip_requirements: {PACKAGES}; received None",
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["experiment", "prefix", "columns", "data", "promote"])
                | st.sampled_from(["loader_module", "code_paths", "pip_requirements", "signature"])
                | st.text(max_size=5),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_settings(given: object) -> None:
    """Whatever the settings are, each problem is one line, and no path leads out of the project."""
    found, problems = settings(given)
    model, more = artifact(given)
    assert all("\n" not in problem for problem in [*problems, *more])
    paths = [*found.data, *model.code_paths]
    assert not [path for path in paths if path.startswith(("/", "../")) or path == ".."]
