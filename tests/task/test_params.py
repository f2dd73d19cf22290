"""The schema of params.yaml: what it refuses and how it says so, and the file's own comments."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from clone import ROOT
from sections import RECIPE
from vanilla_lstm.task.errors import FileError, ParamsError
from vanilla_lstm.task.memory import check_memory
from vanilla_lstm.task.params import parse_params, read_params
from vanilla_lstm.task.schema import Params

COMMENTED = (ROOT / "params.yaml").read_text()
TEXT = "".join(
    f"{section}:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in keys.items())
    for section, keys in RECIPE.items()
)
VALUES: dict[str, dict[str, Any]] = YAML(typ="safe").load(TEXT)
KEYS = [f"{section}.{key}" for section, keys in VALUES.items() for key in keys]
BROKEN = {
    "text": "five",
    "quoted number": "'5'",
    "empty text": "''",
    "NaN": ".nan",
    "infinity": ".inf",
    "minus infinity": "-1e999",
    "negative": "-1",
    "huge": "1" + "0" * 400,
    "huge in hexadecimal": "0x" + "f" * 5000,
    "a mapping": "{a: 1}",
    "a list of texts": "[a, b]",
    "a list of lists": "[[1]]",
    "a date": "2020-01-01",
    "a set": "!!set {1, 2}",
    "a list within itself": "&a [*a]",
    "a value of a thousand million parts": "[" + "&a [0,0,0,0,0,0,0,0,0,0]"
    ", &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]"
    ", &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]]",
}


def _line(key: str, text: str = TEXT) -> int:
    section, name = key.split(".")
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
    return next(i for i, line in enumerate(lines) if i > start and line.startswith(f"  {name}:"))


def changed(**values: str | None) -> str:
    """Return params.yaml with other YAML for some keys (`__` is the dot; None removes the key)."""
    lines = TEXT.splitlines()
    for dotted, value in values.items():
        key = dotted.replace("__", ".")
        lines[_line(key)] = "  # gone" if value is None else f"  {key.split('.')[1]}: {value}"
    return "\n".join(lines)


def of(key: str, value: str | None) -> str:
    """Return params.yaml with other YAML for one key."""
    return changed(**{key.replace(".", "__"): value})


def refusal(text: str) -> list[str]:
    """Return the lines that refuse a text, and assert that each is well-formed."""
    with pytest.raises(ParamsError) as caught:
        check_memory(parse_params(text))
    lines = str(caught.value).splitlines()
    assert 0 < len(lines) <= 21
    for line in lines:
        assert re.match(r"params\.yaml: (.+: )?must |params\.yaml: … and \d+", line)
        assert len(line) < 400
    return lines


def test_committed_params_are_those_of_the_post() -> None:
    """The committed params are valid and are the post's recipe."""
    params = parse_params(TEXT)
    assert (params.data.n_max, params.data.n_steps, params.data.targets) == (5, 10, (1,))
    assert (params.model.units, params.train.epochs, params.train.batch_size) == (25, 250, 32)
    assert (params.train.validation_split, params.train.learning_rate) == (0.2, 0.001)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_broken_value_is_refused_with_key_value_and_rule(key: str, value: str) -> None:
    """A value that no key can have is refused in lines that name key, rule and value."""
    for line in refusal(of(key, value)):
        assert line.startswith(f"params.yaml: {key}")
        assert "; received " in line


@pytest.mark.parametrize("key", KEYS)
def test_null_and_truth_are_refused_where_they_mean_nothing(key: str) -> None:
    """Only the keys that say so accept `null`, `true` and `1.5`."""
    section, name = key.split(".")
    default = VALUES[section][name]
    if default is not None:
        assert "received null" in refusal(of(key, "null"))[0]
    if not isinstance(default, bool):
        assert "received true" in refusal(of(key, "true"))[0]
    if key != "train.clipnorm":
        assert "received 1.5" in refusal(of(key, "1.5"))[0]


@pytest.mark.parametrize("key", KEYS)
def test_missing_unknown_and_twice_given_keys_are_refused(key: str) -> None:
    """A missing key, a misspelt key and a duplicate key are each named."""
    section, name = key.split(".")
    (missing,) = refusal(of(key, None))
    alone = len(VALUES[section]) == 1
    assert missing == (
        f"params.yaml: {section}: must be a mapping; received null"
        if alone
        else f"params.yaml: {key}: must be given"
    )
    unknown = f"params.yaml: {section}.{name}s: must not be given: there is no such key; received 1"
    assert unknown in refusal(of(key, f"1\n  {name}s: 1"))
    (twice,) = refusal(of(key, f"1\n  {name}: 2"))
    assert twice.startswith(f"params.yaml: line {_line(key) + 2}: must be valid YAML")
    assert f'"{name}"' in twice


@pytest.mark.parametrize(
    ("text", "line"),
    {
        "": "must be a mapping of sections; received null",
        "5": "must be a mapping of sections; received 5",
        "- data": "must be a mapping of sections; received ['data']",
        "data: [1": "line 2: must be valid YAML: did not find expected ',' or ']'",
        "\tdata: 1": "line 1: must have spaces instead of tabs",
        "# a\tcomment\ndata:\t1": "line 2: must have spaces instead of tabs",
        "data: *a": "line 1: must be valid YAML: found undefined alias",
        "data: !!int ''": "must be valid YAML: invalid literal for int() with base 10: ''",
        "data: !!bool maybe": "must be valid YAML: 'maybe'",
        "data: 1\n---\ndata: 2": "line 2: must be valid YAML: but found another document",
        "data: \0": "must be valid YAML: unacceptable character #x0000: control characters are not"
        " allowed",
        "data: !!python/object:os.system x": "line 1: must be valid YAML: could not determine a"
        " constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
        "[" * 2000: "line 1: must be valid YAML: exceeded maximum nesting depth",
        "[" * 9000 + "]" * 9000: "line 1: must be valid YAML: exceeded maximum nesting depth",
        "<<: 3": "line 1: must be valid YAML: found a merge key",
    }.items(),
)
def test_file_that_is_no_params_file(text: str, line: str) -> None:
    """Anything but a YAML mapping is refused in one line, with the line number if there is one."""
    (received,) = refusal(text)
    assert received.startswith(f"params.yaml: {line}")


def test_sections_and_odd_keys() -> None:
    """Missing sections, sections that are not mappings and keys that are not words are named."""
    lines = refusal(TEXT.replace("evaluate:", "1:"))
    assert "params.yaml: evaluate: must be given" in lines
    assert any(line.startswith("params.yaml: 1: must not be given") for line in lines)
    assert "params.yaml: data: must be a mapping; received 3" in refusal("data: 3")
    assert refusal(of("data.n_max", "5\n  [1, 2]: 3"))[0].startswith(
        "params.yaml: line 3: must be valid YAML: found unhashable key"
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"data__targets": "[1, 1]"}, "data.targets: must name each step once; received [1, 1]"),
        ({"data__targets": "[10]"}, "data.targets: must be below data.n_steps = 10; received [10]"),
        (
            {"test_data__n_steps": "1"},
            "test_data.n_steps: must be above data.targets' 1; received 1",
        ),
        (
            {"test_data__insert": "2"},
            "test_data.insert: must be 0 where data.insert is 0: the model has no symbols for"
            " marked distractors; received 2",
        ),
        (
            {"model__forget_bias": "chrono", "model__cell": "simple_rnn"},
            "model.forget_bias: must be 'one' unless cell is lstm and sequences have at least 3"
            " steps; received 'chrono'",
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
    """Values that are valid alone but contradict each other are refused."""
    assert refusal(changed(**values)) == [f"params.yaml: {line}"]


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("train_data.n_samples", {}),
        ("test_data.n_samples", {}),
        ("data.n_steps", {}),
        ("data.insert", {}),
        ("test_data.n_steps", {}),
        ("test_data.insert", {"data__insert": "1"}),
        ("model.units", {}),
        ("train.epochs", {}),
        ("train.batch_size", {"train_data__n_samples": "30000000"}),
        ("evaluate.batch_size", {"test_data__n_samples": "30000000"}),
    ],
)
def test_more_than_fits_in_memory(key: str, more: dict[str, str]) -> None:
    """Params that need more memory than the machine has are refused up front, with the figure."""
    value = "1000000000000"
    text = changed(**more, **{key.replace(".", "__"): value})
    (line,) = (line for line in refusal(text) if " GB " in line)
    assert re.fullmatch(
        rf"params\.yaml: {key}: must be smaller: .* would need [\d,]+ GB, but this machine has "
        rf"[\d,]+ GB of memory; received {value}",
        line,
    )


def test_a_curriculum_that_does_not_fit_in_memory() -> None:
    """A curriculum's epochs are reported as the curriculum's, not as those that follow it."""
    phase = "{n_steps: 5, epochs: 1000000000000, learning_rate: 0.001}"
    (line,) = refusal(changed(train__curriculum=f"[{phase}]"))
    assert line.startswith("params.yaml: train.curriculum: must be smaller: the curves would need")


def test_epochs_of_all_phases_count_together() -> None:
    """The curriculum and the epochs after it may each fit in memory but not together."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    epochs = int(0.6 * memory / 250)
    curriculum = f"[{{n_steps: 5, epochs: {epochs}, learning_rate: 0.001}}]"
    parse_params(changed(train__epochs=str(epochs)))
    parse_params(changed(train__curriculum=curriculum))
    (line,) = refusal(changed(train__epochs=str(epochs), train__curriculum=curriculum))
    assert line.startswith("params.yaml: train.epochs: must be smaller: the curves would need")


def test_a_batch_is_no_larger_than_its_data() -> None:
    """A batch size above the number of samples needs no more memory than the samples do."""
    parse_params(changed(train__batch_size="1000000000", evaluate__batch_size="1000000000"))


@given(st.sampled_from(KEYS), st.from_regex(r"[^\x00-\x1f]{0,12}", fullmatch=True))
@example("data.n_max", "1:")
def test_any_text_as_a_value(key: str, value: str) -> None:
    """Any text after a key gives params or well-formed error lines."""
    try:
        parse_params(of(key, value))
    except ParamsError:
        refusal(of(key, value))


@given(st.integers(0, len(TEXT)), st.integers(0, 40), st.text(max_size=8))
def test_any_edit(start: int, length: int, replacement: str) -> None:
    """Wherever the file is cut or overwritten, it gives params or well-formed error lines."""
    text = TEXT[:start] + replacement + TEXT[start + length :]
    try:
        parse_params(text)
    except ParamsError:
        refusal(text)


def test_numbers_are_those_of_dvc() -> None:
    """`1e-3`, `250.0` and `2.5e2` mean what they mean to DVC, and `yes` is text."""
    params = parse_params(changed(train__learning_rate="1e-3", train__epochs="2.5e2"))
    assert (params.train.learning_rate, params.train.epochs) == (0.001, 250)
    assert params == parse_params(of("train.epochs", "250.0"))
    assert "must be true or false; received 'yes'" in refusal(of("data.marked", "yes"))[0]


def test_anchors_and_merges_are_followed() -> None:
    """Plain YAML anchors keep their meaning."""
    text = changed(train_data__seed="&seed 7", test_data__seed="*seed")
    assert parse_params(text).test_data.seed == 7


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"data: \xff\xfe", "cannot be read (it is not UTF-8); `git checkout "),
        (TEXT.encode("utf-16"), "cannot be read (it is not UTF-8); `git checkout "),
        (b"#" * 10_000_000, "must be at most 20000 bytes"),
    ],
    ids=["bytes", "UTF-16", "ten megabytes"],
)
def test_file_that_is_no_text(tmp_path: Path, content: bytes, problem: str) -> None:
    """A file in another encoding, or larger than params can need to be, is refused."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises((FileError, ParamsError)) as caught:
        read_params(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, or a folder in its place, is refused with the cure."""
    with pytest.raises(FileError, match=r"No such file or directory.*git checkout"):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(FileError, match=r"Is a directory.*git checkout"):
        read_params(tmp_path)


@pytest.mark.parametrize("stage", ["generate_data.py", "train.py", "evaluate.py"])
def test_refusal_is_quick(tmp_path: Path, stage: str) -> None:
    """A stage refuses params with status 1 within a CPU-second, so before loading TensorFlow."""
    (tmp_path / "params.yaml").write_text(of("train.epochs", "0"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, ROOT / "stages" / stage, "test"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "params.yaml: train.epochs: must be at least 1; received 0\n"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["params.yaml"]


# params.yaml as documentation


def _in_words(key: str) -> str:
    """Return a key's range from the schema, in the words that its comment must use."""
    section, name = key.split(".")
    definition = Params.model_fields[section].annotation
    assert definition is not None
    schema = definition.model_json_schema()["properties"][name]
    kinds = schema.get("anyOf", [schema])
    kind = kinds[0].get("items", kinds[0])
    null = "null or " if {"type": "null"} in kinds else ""
    if kind["type"] == "boolean":
        return "true or false"
    if "enum" in kind:
        return f"{', '.join(kind['enum'][:-1])} or {kind['enum'][-1]}"
    low = kind.get("minimum", kind.get("exclusiveMinimum"))
    low = f"{'above ' if 'exclusiveMinimum' in kind else ''}{low:f}".rstrip("0").rstrip(".")
    if "exclusiveMaximum" in kind:
        return f"{null}{low}, below {kind['exclusiveMaximum']:g}"
    if kind.get("maximum", 10**15) == 10**15:  # memory runs out sooner
        return f"{null}{low} or more"
    return f"{null}{low} to {kind['maximum']:.0f}"


@pytest.mark.parametrize("key", KEYS)
def test_each_key_gives_its_range(key: str) -> None:
    """Each key's comment says what it is, its range as in the schema, and why it has its value."""
    what, _, why = COMMENTED.splitlines()[_line(key, COMMENTED)].partition(" # ")[2].partition("; ")
    assert why
    if key == "train.curriculum":
        assert "{n_steps, epochs, learning_rate}" in what
    else:
        assert re.search(rf"(^|[ ,]){re.escape(_in_words(key))}$", what)
