"""Wrong params are refused before anything runs: one line per mistake, with key, rule and value."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.clone import ROOT, environment
from support.params import KEYS, TEXT, VALUES, changed, line_of, of, refusal
from vanilla_lstm.task.errors import ParamsError
from vanilla_lstm.task.params import parse_params

BROKEN = {
    "text": "five",
    "empty text": "''",
    "NaN": ".nan",
    "infinity": ".inf",
    "negative": "-1",
    "huge": "1" + "0" * 400,
    "huge in hexadecimal": "0x" + "f" * 5000,
    "a mapping": "{a: 1}",
    "a list of texts": "[a, b]",
    "a set": "!!set {1, 2}",
    "a list within itself": "&a [*a]",
    "a value of a thousand million parts": "[" + "&a [0,0,0,0,0,0,0,0,0,0]"
    ", &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]"
    ", &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]]",
}


def test_committed_params_are_those_of_the_post() -> None:
    """The committed params are valid and are the post's recipe."""
    params = parse_params(TEXT)
    assert (params.data.n_max, params.data.n_steps, params.data.targets) == (5, 10, (1,))
    assert (params.model.units, params.train.epochs, params.train.batch_size) == (25, 250, 32)
    assert (params.train.validation_split, params.train.learning_rate) == (0.2, 0.001)


@pytest.mark.parametrize("key", KEYS)
def test_broken_value(key: str) -> None:
    """A value that a key cannot have is refused; each line names key, rule and value."""
    lines = {name: refusal(of(key, value)) for name, value in BROKEN.items()}
    expected = re.compile(rf"params\.yaml: {re.escape(key)}.*; received ", re.S)
    assert [name for name in lines if not all(map(expected.match, lines[name]))] == []
    section, name = key.split(".")
    default = VALUES[section][name]
    if default is not None:
        assert "received null" in refusal(of(key, "null"))[0]
    if not isinstance(default, bool):
        assert "received true" in refusal(of(key, "true"))[0]
    if key != "train.clipnorm":
        assert "received 1.5" in refusal(of(key, "1.5"))[0]


def test_missing_unknown_and_twice_given_keys() -> None:
    """A missing, a misspelt and a duplicate key are each named, and so is a missing section."""
    (missing,) = refusal(of("model.units", None))
    assert missing == "params.yaml: model.units: must be given"
    unknown = "params.yaml: model.unitss: must not be given: there is no such key; received 1"
    assert unknown in refusal(of("model.units", "1\n  unitss: 1"))
    (twice,) = refusal(of("model.units", "1\n  units: 2"))
    assert twice.startswith(f"params.yaml: line {line_of('model.units') + 2}: must be valid YAML")
    assert '"units"' in twice
    lines = refusal(TEXT.replace("evaluate:", "1:"))
    assert "params.yaml: evaluate: must be given" in lines
    assert any(line.startswith("params.yaml: 1: must not be given") for line in lines)
    assert "params.yaml: data: must be a mapping; received 3" in refusal("data: 3")


@pytest.mark.parametrize(
    ("text", "line"),
    {
        "": "must be a mapping of sections; received null",
        "- data": "must be a mapping of sections; received ['data']",
        "data: [1": "line 2: must be valid YAML: did not find expected ',' or ']'",
        "# a\tcomment\ndata:\t1": "line 2: must have spaces instead of tabs",
        "data: *a": "line 1: must be valid YAML: found undefined alias",
        "data: !!int ''": "must be valid YAML: invalid literal for int() with base 10: ''",
        "data: 1\n---\ndata: 2": "line 2: must be valid YAML: but found another document",
        "data: \0": "must be valid YAML: unacceptable character #x0000: control characters are not"
        " allowed",
        "data: !!python/object:os.system x": "line 1: must be valid YAML: could not determine a"
        " constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
        "[" * 2000: "line 1: must be valid YAML: exceeded maximum nesting depth",
    }.items(),
)
def test_file_that_is_no_params_file(text: str, line: str) -> None:
    """Anything but a YAML mapping is refused in one line, with the line number if YAML has one."""
    (received,) = refusal(text)
    assert received.startswith(f"params.yaml: {line}")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"data__targets": "[1, 1]"}, "data.targets: must name each step once; received [1, 1]"),
        ({"data__targets": "[10]"}, "data.targets: must be below data.n_steps = 10; received [10]"),
        (
            {"test_data__insert": "2"},
            "test_data.insert: must be 0 where data.insert is 0: the model has no symbols for"
            " marked distractors; received 2",
        ),
        (
            {"train__validation_split": "0.9999"},
            "train.validation_split: must split train_data.n_samples = 1000 into two parts that are"
            " not empty; received 0.9999",
        ),
        (
            {"train__curriculum": "[{n_steps: 10, epochs: 1, learning_rate: 0.1}]"},
            "train.curriculum: must have each n_steps above data.targets' 1 and below data.n_steps"
            " = 10; received [{'epochs': 1, 'learning_rate': 0.1, 'n_steps': 10}]",
        ),
        (
            {
                "train__curriculum": "[{n_steps: 5, epochs: 1, learning_rate: 0.1}]",
                "data__insert": "1",
            },
            "train.curriculum: must be empty where data.insert is not 0: a beginning may lack the"
            " targets; received [{'epochs': 1, 'learning_rate': 0.1, 'n_steps': 5}]",
        ),
    ],
)
def test_keys_that_contradict_each_other(values: dict[str, str], line: str) -> None:
    """Values that are valid alone but contradict each other are refused, with both keys."""
    assert refusal(changed(**values)) == [f"params.yaml: {line}"]


@given(st.integers(0, len(TEXT)), st.integers(0, 40), st.text(max_size=8))
def test_any_edit(start: int, length: int, replacement: str) -> None:
    """A file cut or overwritten anywhere gives params or well-formed error lines."""
    text = TEXT[:start] + replacement + TEXT[start + length :]
    try:
        parse_params(text)
    except ParamsError:
        refusal(text)


STAGES = [[f"{ROOT}/stages/{name}.py", "test"] for name in ("generate_data", "train", "evaluate")]


@pytest.mark.parametrize("command", [*STAGES, ["-m", "vanilla_lstm.task.params"]])
def test_refused_before_tensorflow(tmp_path: Path, command: list[str]) -> None:
    """A stage refuses params with one line and status 1, before it loads Keras or TensorFlow.

    So does the check with which `make repro` begins.
    """
    trap, folder = tmp_path / "trap", tmp_path / "folder"
    trap.mkdir()
    folder.mkdir()
    for package in ("keras", "tensorflow"):
        (trap / f"{package}.py").write_text(f"raise SystemExit('{package} is loaded')")
    (folder / "params.yaml").write_text(of("train.epochs", "0"))
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment(PYTHONPATH=f"{trap}:{ROOT / 'stages'}"),
        capture_output=True,
        text=True,
        check=False,
    )
    rule = "params.yaml: train.epochs: must be at least 1; received 0\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", rule)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["params.yaml"]
