"""The prefix goes before any command, in any style of YAML, and comes off again to the byte."""

import json
import shlex

import pytest
from dvc.utils.serialize import dumps_yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dvc_mlflow.editing import Change, rewrite
from dvc_mlflow.prefix import is_prefixed, is_simple, is_taken, put, take
from dvc_mlflow.project import parse

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from DVC and MLflow
]


KEYS = ("stages", "train", "cmd")


@pytest.mark.parametrize(
    ("command", "prefixed"),
    [
        ("python x", "dvc-mlflow run python x"),
        ("exec python x", "exec dvc-mlflow run python x"),
        ("python x > out 2>&1 < in", "dvc-mlflow run python x > out 2>&1 < in"),
        ("$PYTHON 'a && b' *.txt", "dvc-mlflow run $PYTHON 'a && b' *.txt"),
        ("cd x && python y", "dvc-mlflow run -c 'cd x && python y'"),
        ("A=1 python y", "dvc-mlflow run -c 'A=1 python y'"),
        ("a; b", "dvc-mlflow run -c 'a; b'"),
        ("a | tee 'b c'", r"dvc-mlflow run -c 'a | tee '\''b c'\'''"),
        ("a &", "dvc-mlflow run -c 'a &'"),
        ("(a)", "dvc-mlflow run -c '(a)'"),
        ("{ a; }", "dvc-mlflow run -c '{ a; }'"),
        ("if a; then b; fi", "dvc-mlflow run -c 'if a; then b; fi'"),
        ("export A=1", "dvc-mlflow run -c 'export A=1'"),
        (". venv/bin/activate", "dvc-mlflow run -c '. venv/bin/activate'"),
        ("exec -a name python", "dvc-mlflow run -c 'exec -a name python'"),
        ("2>err cd x", "dvc-mlflow run -c '2>err cd x'"),
        ("-x", "dvc-mlflow run -c '-x'"),
    ],
)
def test_commands(command: str, prefixed: str) -> None:
    """A single program gets the prefix; shell syntax is passed to a shell as it is."""
    assert put(command, is_simple(command)) == prefixed
    assert take(prefixed) == command
    assert is_prefixed(prefixed)
    assert is_taken(prefixed)


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("exec .venv/bin/dvc-mlflow run -- python x", "exec python x"),
        ("cd x && dvc-mlflow  run python y", "cd x && python y"),
        ("A=1 dvc-mlflow run python x", "A=1 python x"),
        ("exec dvc-mlflow run -c 'a; b'", "a; b"),
        ('dvc-mlflow run -c "a; b"', "a; b"),
        ("dvc-mlflow run -c " + shlex.quote("a 'b'; c"), "a 'b'; c"),
        ('dvc-mlflow run -c "a $B"', None),
        ("dvc-mlflow run -c a", None),
        ("cd x && dvc-mlflow run -c 'a; b'", None),
    ],
)
def test_prefixes_that_a_user_wrote(written: str, command: str | None) -> None:
    """A prefix is removed wherever it is, and shell text is unquoted only if that is safe."""
    assert is_prefixed(written)
    assert is_taken(written) == (command is not None)
    assert command is None or take(written) == command


def both(text: str, *, simple: bool, keys: tuple[str, ...] = KEYS) -> str:
    """Add the prefix to a YAML text, check that it comes off again, and return the text."""
    edited = rewrite(text, {keys: simple})
    assert rewrite(edited, {keys: None}) == text
    return edited


STYLES = {
    "plain": ("python x", "dvc-mlflow run python x"),
    "comment": ("python x\t # python x", "dvc-mlflow run python x\t # python x"),
    "folded": ("python\n      x 'y'", "dvc-mlflow run python\n      x 'y'"),
    "single": ("'python ''x'''", "'dvc-mlflow run python ''x'''"),
    "double": (r'"exec python \"ü\""', r'"exec dvc-mlflow run python \"ü\""'),
    "anchor": ("&cmd !!str python x", "&cmd !!str dvc-mlflow run python x"),
    "|": (
        "|  # python b\n      a\n      python b  \n\n      # python b\n",
        "|  # python b\n      a\n      dvc-mlflow run python b  \n\n      # python b\n",
    ),
    ">": (">\n      python\n      x\n", ">\n      dvc-mlflow run python\n      x\n"),
    "|-": ("|-\n      python x", "|-\n      dvc-mlflow run python x"),
    "list": ("\n    - python x\n    - python x", "\n    - python x\n    - dvc-mlflow run python x"),
    "flow": ("[a, 'python x']  # c", "[a, 'dvc-mlflow run python x']  # c"),
}

TEXTS = {
    "plain": ("cd 'a b' && c", r"dvc-mlflow run -c 'cd '\''a b'\'' && c'"),
    "single": ("'cd ''a b'' && c'", r"'dvc-mlflow run -c ''cd ''\''''a b''\'''' && c'''"),
    "double": ("\"cd 'a' &&\n      c\"", r""" "dvc-mlflow run -c 'cd '\\''a'\\'' &&~c'" """),
    "|": ("|\n      a\n      b; c  \n", "|\n      a\n      dvc-mlflow run -c 'b; c'  \n"),
    ">-": (">-\n      cd a &&\n      c", ">-\n      dvc-mlflow run -c 'cd a &&\n      c'"),
    "item": ("\n    - |\n      a\n      b", "\n    - |\n      dvc-mlflow run -c 'a\n      b'"),
}


@pytest.mark.parametrize("start", ["", "\ufeff", "# é\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n    deps: [python x]\n"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_styles(start: str, end: str, line: str) -> None:
    """Comments, quotes, anchors, line ends and text that looks like a command are unchanged."""
    for styles, simple in ((STYLES, True), (TEXTS, False)):
        for before, after in styles.values():
            text = f"{start}stages:\n  train:\n    cmd: {{}}{end}".replace("\n", line)
            wanted = after.strip(" ").replace("~", "\n      ").replace("\n", line)
            edited = both(text.format(before.replace("\n", line)), simple=simple)
            assert edited == text.format(wanted)


WORDS = r"""
python exec cd && | ; > 2>&1 'a_b' "c" A=1 ${rate} \${HOME} $(date) é 😀 \' '\'' '"'"' "'"
if fi ( ) { } -c -- # a:b \n \ a\_b * ! % @ [ ] , ? - &a "" dvc-mlflow run
"""

COMMANDS = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=30).map(" ".join)


@given(command=COMMANDS, style=st.sampled_from(["plain", "'", '"', "|", ">", "- ", "- '", "lock"]))
@example(command="""'"'"' && '\\''""", style="'")
@example(command="> >", style=">")
@example(command="? - ?", style="- ")
@settings(deadline=None, max_examples=500)
def test_any_command(command: str, style: str) -> None:
    """Any command comes back byte for byte, and a shell gets the same text."""
    sources = {
        "plain": command,
        "'": "'{}'".format(command.replace("'", "''")),
        '"': json.dumps(command, ensure_ascii=False),
        "|": f"|\n      {command}\n",
        ">": ">\n      " + command.replace(" ", "\n      "),
        "- ": f"\n    - {command}",
        "- '": "\n    - a\n    - '{}'".format(command.replace("'", "''")),
    }
    if style == "lock":
        text = dumps_yaml({"stages": {"train": {"cmd": command}}})
    else:
        text = f"stages:\n  train:\n    cmd: {sources[style]}\n    deps: [x]\n"
    try:
        value = parse(text, "dvc.yaml")["stages"]["train"]["cmd"]
    except ValueError:
        value = None
    last = value[-1] if isinstance(value, list) else value
    assume(last in (command, f"{command}\n"))
    assume(not is_prefixed(command) and not command.startswith("#"))
    simple = is_simple(command)
    edited = both(text, simple=simple)
    after = put(command, simple)
    assert is_taken(after)
    if not simple:
        assert shlex.split(after) == ["dvc-mlflow", "run", "-c", command]
    new = parse(edited, "dvc.yaml")["stages"]["train"]["cmd"]
    assert (new[-1] if isinstance(new, list) else new).strip() == after


def test_quotes_that_the_prefix_has_made_needless() -> None:
    """If DVC has rewritten dvc.lock, a command without its prefix gets the quotes it needs."""
    text = "stages:\n  train:\n    cmd: dvc-mlflow run \"$PYTHON\" 'x'\n"
    edited = rewrite(text, {KEYS: None})
    assert edited == "stages:\n  train:\n    cmd: '\"$PYTHON\" ''x'''\n"


@pytest.mark.parametrize(
    ("text", "simple"),
    [
        (r'stages: {train: {cmd: "python \u00e9"}}', True),
        ("vars: [{a: &a python x}]\nstages: {train: {cmd: *a}}", True),
        ("vars: [&a {cmd: python x}]\nstages: {train: {<<: *a, deps: [x]}}", True),
    ],
)
def test_more_would_change(text: str, simple: Change) -> None:
    """A command that cannot be edited without changing other bytes is not edited."""
    with pytest.raises(ValueError, match=r"would change|could not restore"):
        rewrite(text, {KEYS: simple})
