"""`dvc-mlflow init` and `deinit`: the prefix before commands, and not a byte more."""

import io
import json
import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dumps_yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dvc_mlflow.editing import Change, rewrite
from dvc_mlflow.prefix import is_prefixed, is_simple, is_taken, put, take
from dvc_mlflow.project import parse
from pipelines import Repository, prepare, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what DVC and MLflow warn of in the test's process
]

KEYS = ("stages", "train", "cmd")
LINES = "/mlflow.db*\n/mlartifacts/\n/restored/\n"
MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back\n"


# Commands


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
    """One program gets the prefix; what a shell does by itself stays a shell's text."""
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
    """A prefix is taken away wherever it is, but shell text in quotes only where that is safe."""
    assert is_prefixed(written)
    assert is_taken(written) == (command is not None)
    assert command is None or take(written) == command


# YAML


def both(text: str, *, simple: bool, keys: tuple[str, ...] = KEYS) -> str:
    """Return a YAML text with the prefix, which can be taken away again."""
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
    """Comments, quotes, anchors and line ends stay as they are, and so does what is like them."""
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
@settings(deadline=None, max_examples=500)
def test_any_command(command: str, style: str) -> None:
    """Whatever a command says, it comes back to the byte, and a shell gets the same text."""
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
    """Where DVC has written dvc.lock since, a text without the prefix gets quotes if it needs."""
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
    """A command that cannot be edited by itself, to the byte, is not edited."""
    with pytest.raises(ValueError, match=r"would change|could not restore"):
        rewrite(text, {KEYS: simple})


# Pipelines

PIPELINE = """\
# Made by hand
stages:
  prepare:
    cmd: cat raw.txt > data.txt  # no metrics
    deps: [raw.txt]
    outs: [data.txt]
  train: &train
    cmd:
    - echo
    - "exec sh train.sh\t${rate}"
    deps: [data.txt, train.sh]
    params: [rate]
    outs: [model.txt]
    plots: [curve.csv: {cache: false, x: step}]
  evaluate:
    foreach: [a, b]
    do:
      cmd: >-
        grep -q .* model.txt &&
        echo '{"score":' ${rate}'}'
        > ${item}.json
      deps: [model.txt]
      metrics:
        - ${item}.json:
            cache: false
"""
PART = """\
stages:
  check:
    matrix: {size: [1, 2], kind: [x]}
    cmd: |
      mkdir -p out
      echo '{"size":${item.size}}' > out/${item.size}.json
    metrics:
    - out/${item.size}.json: {cache: false}
"""
SCRIPT = "cat data.txt > model.txt; printf 'step,loss\\n1,0.5\\n2,0.25\\n' > curve.csv\n"
FILES = {
    "dvc.yaml": PIPELINE,
    "train.sh": SCRIPT,
    "part/dvc.yaml": PART.replace("\n", "\r\n").removesuffix("\r\n"),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run, with its results committed; `copy` it."""
    project = repository(tmp_path_factory.mktemp("made") / "project", {}, {"rate": 1})
    for path, text in FILES.items():
        (project.path / path).parent.mkdir(exist_ok=True)
        (project.path / path).write_bytes(text.encode())
    (project.path / ".gitignore").write_text("/mlartifacts/")
    project.dvc("repro", "-q", "-P")
    project.commit("The results")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of it."""
    return made.copy(tmp_path / "project")


def changed_lines(project: Repository, *paths: str) -> list[str]:
    """Return the lines of these files that differ from the last commit."""
    diff = project.git("diff", "-U0", "--", *paths).splitlines()
    return [line for line in diff if line[:1] == "+" and line[:3] != "+++"]


def status(project: Repository) -> str:
    """Return what git sees, and DVC."""
    return project.git("status", "--porcelain") + project.dvc("status").stdout


def test_init_and_deinit(project: Repository) -> None:
    """The prefix goes before the commands, in dvc.lock too; nothing runs, and all comes back."""
    clean = "Data and pipelines are up to date.\n"
    (project.path / "dvc.yaml").chmod(0o640)
    assert status(project) == clean
    said = project.tool("init", "--yes")
    assert (said.status, said.error) == (0, ""), said
    assert changed_lines(project, "dvc.yaml", "part/dvc.yaml") == [
        '+    - "exec dvc-mlflow run sh train.sh\t${rate}"',
        "+        dvc-mlflow run -c 'grep -q .* model.txt &&",
        """+        echo '\\''{"score":'\\'' ${rate}'\\''}'\\''""",
        "+        > ${item}.json'",
        "+      dvc-mlflow run -c 'echo '\\''{\"size\":${item.size}}'\\'' > out/${item.size}.json'",
    ]
    assert project.dvc("status").stdout == clean
    assert project.repro("-P") == []
    assert len(changed_lines(project, "dvc.lock", "part/dvc.lock")) == 5
    assert (project.path / "dvc.yaml").stat().st_mode & 0o777 == 0o640
    ignored = (project.path / ".gitignore").read_text()
    assert ignored.endswith(f"/model.txt\n{MARK}/mlflow.db*\n/restored/\n")
    for line in ("dvc.lock has the new commands", "record --all", "`dvc repro` records"):
        assert line in said.out
    before = status(project)
    again = project.tool("init")
    assert again.out.splitlines()[-1] == "nothing to do: these stages have the prefix"
    assert (again.status, status(project)) == (0, before)
    assert project.tool("deinit", "--dry-run").status == 0
    assert status(project) == before
    assert project.tool("deinit", "--yes").status == 0
    assert status(project) == clean
    assert "nothing to do" in project.tool("deinit").out


def one(stage: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a stage with a metric, and what else is given."""
    return {"metrics": [{"score.json": {"cache": False}}], **stage, **more}


SCORE = "echo 1 > score.json"
PREFIXED = f"dvc-mlflow run -c '{SCORE}'"


def command(project: Repository, stage: str = "train", folder: str = ".") -> Any:
    """Return a stage's command in dvc.yaml."""
    text = (project.path / folder / "dvc.yaml").read_text()
    return parse(text, "dvc.yaml")["stages"][stage]["cmd"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"{MARK}{LINES}"),
        ("", f"{MARK}{LINES}".removesuffix("\n")),
        ("a\n", f"a\n{MARK}{LINES}"),
        ("a", f"a\n{MARK}{LINES}".removesuffix("\n")),
        ("a\r\n", f"a\n{MARK}{LINES}".replace("\n", "\r\n")),
        ("/mlartifacts/\n", f"/mlartifacts/\n{MARK}/mlflow.db*\n/restored/\n"),
        (LINES, LINES),
    ],
)
def test_ignore_files(tmp_path: Path, before: str | None, after: str) -> None:
    """Lines that are missing are added to both files, and nothing else of them changes."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    files = [project.path / ".gitignore", project.path / ".dvcignore"]
    old = None if before is None else before.encode()
    for file in files:
        file.unlink()
        if old is not None:
            file.write_bytes(old)
    assert project.tool("init", "--yes").status == 0
    for file in files:
        assert file.read_bytes() == after.encode()
    assert project.tool("deinit", "--yes").status == 0
    assert [file.read_bytes() if file.exists() else None for file in files] == [old, old]


def test_nested_project(tmp_path: Path) -> None:
    """The store is in the outermost project, and so are the lines that ignore it."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    project.run("sh", "-c", "mkdir inner && cd inner && dvc init -q --subdir && cp ../dvc.yaml .")
    project.commit("A project in it")
    assert project.tool("init", "--yes", folder="inner").status == 0
    assert command(project) == SCORE
    assert command(project, folder="inner") == PREFIXED
    assert MARK in (project.path / ".gitignore").read_text()


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True


@pytest.mark.parametrize("typed", ["y\n", "Y\n", "yes\n", "\n", ""])
def test_asks(tmp_path: Path, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `y` writes; without a terminal, --yes has to say it."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    said = project.tool("init")
    assert said.error == (
        "dvc-mlflow: nothing was written: there is no terminal to ask at; add --yes\n"
    )
    assert said.status == 1
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert project.tool("init", "--dry-run").status == 0
    assert project.git("status", "--porcelain") == ""
    said = project.tool("init")
    assert "Write this? [y/N] " in said.out
    assert (said.status, command(project)) == ((0, PREFIXED) if typed == "y\n" else (1, SCORE))


def test_stages(tmp_path: Path) -> None:
    """`--stages` names others than those with metrics, curves or a model."""
    stages = {"prepare": prepare(), "train": one({"cmd": SCORE})}
    project = repository(tmp_path / "project", stages)
    assert "no stage is named 'x'" in project.tool("init", "--stages", "x").error
    said = project.tool("init", "--yes", "--stages", "prepare")
    assert said.out.splitlines()[:3] == [
        "The stages of this project; those with a * are recorded:",
        "* prepare",
        "  train: metrics",
    ]
    assert command(project) == SCORE
    assert command(project, "prepare") == "dvc-mlflow run cat raw.txt > data.txt"
    project = repository(tmp_path / "other", {"prepare": prepare()})
    said = project.tool("init")
    assert said.error.endswith("name the stages to record: --stages prepare\n")
    assert said.status == 1


# What is left to the user

SHARED = """\
vars: [{text: "it's", lines: "a\nb"}]
stages:
  prepare: {cmd: &copy cp raw.txt a.txt, outs: [a.txt]}
  train: {cmd: *copy, metrics: [m.json: {cache: false}]}
  base: &base {cmd: "echo 1", metrics: [b.json: {cache: false}]}
  merged: {<<: *base, metrics: [c.json: {cache: false}]}
  quotes: {cmd: "cd x && echo '${text}'", metrics: [d.json: {cache: false}]}
  bash: {cmd: "source x && y", metrics: [e.json]}
  spaces: {cmd: "python train.py  --rate 1  --width 2  --depth 3  --layers 4 --x 5  6  7",
    metrics: [g.json: {cache: false}]}
  escape: {cmd: "echo \\u0031", metrics: [f.json: {cache: false}]}
"""


def test_left_to_the_user(tmp_path: Path) -> None:
    """A command that another stage shares, or that cannot be edited safely, costs one line."""
    project = repository(tmp_path / "project", {}, files={"dvc.yaml": SHARED})
    said = project.tool("init", "--yes")
    assert said.status == 1
    assert [line.split(" stays as it is: ") for line in said.error.splitlines()] == [
        [f"dvc-mlflow: stage {name}", f"{reason}; put `dvc-mlflow run` there by hand"]
        for name, reason in {
            "train": "prepare has the same command, in the same place",
            "quotes": "the values in its command change how a shell reads it",
            "spaces": "DVC would break its long command at two spaces, and lose one",
            "escape": "a command is written in a way that `deinit` could not restore",
        }.items()
    ]
    assert changed_lines(project, "dvc.yaml") == [
        """+  base: &base {cmd: "dvc-mlflow run -c 'echo 1'", metrics: [b.json: {cache: false}]}""",
        """+  bash: {cmd: "dvc-mlflow run -c 'source x && y'", metrics: [e.json]}""",
    ]
    assert command(project, "merged") == "dvc-mlflow run -c 'echo 1'"
    project.tool("init", "--yes", "--stages", "prepare,train,merged,base")
    assert command(project, "train") == "dvc-mlflow run cp raw.txt a.txt"
    assert project.tool("deinit", "--yes").status == 0
    assert project.git("status", "--porcelain") == ""


def test_result_that_is_not_of_this_command(tmp_path: Path) -> None:
    """Only the command that dvc.lock has is replaced there; a stage that has changed will run."""
    stages = {"train": one({"cmd": SCORE}), "other": {"cmd": "echo 2"}}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    lock = project.lock
    project.write({"dvc.yaml": (project.path / "dvc.yaml").read_text().replace("echo 1", "echo 3")})
    assert project.tool("init", "--yes").status == 0
    assert project.lock == lock
    assert command(project) == PREFIXED.replace("1", "3")
    assert "Next: " in project.tool("init", "--stages", "other", "--yes").out


# Files


def test_links(tmp_path: Path) -> None:
    """A file that is a link, which may lead elsewhere, is left alone."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    for name in ("dvc.yaml", ".gitignore"):
        elsewhere = (project.path / name).rename(tmp_path / name)
        before = elsewhere.read_bytes()
        (project.path / name).symlink_to(elsewhere)
        said = project.tool("init", "--yes")
        assert said.status == 1
        assert f"{name}: is a link, which may lead elsewhere" in said.error
        assert elsewhere.read_bytes() == before
        (project.path / name).unlink()
        elsewhere.rename(project.path / name)
    assert project.git("status", "--porcelain") == ""


@pytest.mark.parametrize("n", [400, 900])
def test_deep(tmp_path: Path, n: int) -> None:
    """A dvc.yaml that is nested deeply costs one line, if anything."""
    project = repository(tmp_path / "project", {})
    text = json.dumps({"stages": {"train": one({"cmd": SCORE}, meta={"a": "deep"})}})
    project.write({"dvc.yaml": text.replace('"deep"', "[" * n + "]" * n)})
    said = project.tool("init", "--yes")
    assert (said.error, said.status) in [
        ("", 0),
        ("dvc-mlflow: dvc.yaml is nested too deeply\n", 1),
    ]


def test_enormous(tmp_path: Path) -> None:
    """A file that is larger than anyone writes is not read."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    with (project.path / ".gitignore").open("a") as file:
        file.write("#" * 10_000_000)
    said = project.tool("init", "--yes")
    assert said.error.endswith(".gitignore: is not a file, or is larger than 10 MB\n")
    assert command(project) == SCORE


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_no_file_is_lost(project: Repository, fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be written, or has changed meanwhile, no file is, and none is lost."""
    before = status(project)
    calls = []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == fails:
            raise OSError(28, "No space left on device", "dvc.yaml")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copymode", failing)
        said = project.tool("init", "--yes")
    assert said.error == "dvc-mlflow: dvc.yaml: No space left on device; nothing was lost\n"
    assert (said.status, status(project)) == (1, before)

    def edited(prompt: str) -> str:
        project.write({"part/dvc.yaml": PART + "# An edit\n"})
        return "y"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", edited)
    said = project.tool("init")
    assert said.error.endswith("part/dvc.yaml has changed meanwhile\n")
    assert project.git("status", "--porcelain") == "M part/dvc.yaml"


# Pipelines of other kinds


def adopted(project: Repository, at_most: int = 3) -> None:
    """Put the prefix into a pipeline, by changing no more than these lines of its dvc.yaml."""
    project.commit("Somebody's pipeline")
    said = project.tool("init", "--yes")
    assert (said.status, said.error) == (0, "")
    assert 0 < len(changed_lines(project, "dvc.yaml")) <= at_most


LOOPS = """\
stages:
  prepare:
    foreach: [one, two]
    do:
      cmd: sh -c 'echo ${item} > ${item}.txt'
      outs: ["${item}.txt"]
  train:
    matrix: {model: [small, large], data: [one, two]}
    cmd: sh train.sh ${item.model} ${item.data}
    deps: ["${item.data}.txt", train.sh]
    outs: ["${item.model}-${item.data}.txt"]
    metrics: ["${item.model}-${item.data}.json": {cache: false}]
  compare:
    foreach: {small: {goal: 1}, large: {goal: 2}}
    do:
      cmd: cat ${key}-*.txt > /dev/null && echo '{"goal":' ${item.goal}'}' > ${key}.json
      deps: ["${key}-one.txt", "${key}-two.txt"]
      metrics: ["${key}.json": {cache: false}]
"""


def test_matrix_and_foreach(tmp_path: Path) -> None:
    """Items of a matrix and a foreach over models and data have rows after `dvc repro`."""
    script = """cat $2.txt > $1-$2.txt; echo "{\\"size\\": $(wc -c < $2.txt)}" > $1-$2.json"""
    files = {"dvc.yaml": LOOPS, "train.sh": script}
    project = repository(tmp_path / "project", {}, files=files)
    adopted(project, 2)
    assert command(project) == "dvc-mlflow run sh train.sh ${item.model} ${item.data}"
    project.dvc("repro", "-q")
    found = [(row.data.params, row.data.metrics) for row in project.rows()]
    assert len(found) == 6
    assert {p["item.model"] + p["item.data"] for p, _ in found if "item.model" in p} == {
        "smallone",
        "smalltwo",
        "largeone",
        "largetwo",
    }
    assert "nothing to do" in project.record().out


def test_results_from_before(project: Repository) -> None:
    """Results from before have rows by `record`, and stay as they are; none is made again."""
    table = project.copy(project.path.with_name("other"))
    assert table.tool("record").status == 0
    assert project.tool("init", "--yes").status == 0
    assert project.tool("record").status == 0
    assert project.table() == table.table()
    assert project.repro() == []
    project.set({"rate": 2})
    assert len(project.repro()) == 3
    assert "nothing to do" in project.record().out


def test_shell(tmp_path: Path) -> None:
    """A stage that changes the folder and pipes, with quotes and variables, runs as before."""
    shell = """cd src && for a in 1 2; do echo "{\\"a\\": $a}"; done | tail -1 > '../m.json'"""
    text = (
        f"stages:\n  shell:\n    cmd: |\n      {shell}\n    metrics: [m.json: {{cache: false}}]\n"
    )
    project = repository(tmp_path / "project", {}, files={"dvc.yaml": text, "src/keep": ""})
    adopted(project, 1)
    project.dvc("repro", "-q")
    (row,) = project.rows()
    assert row.data.metrics == {"shell/a": 2}


PLAIN = """
import mlflow

with mlflow.start_run():
    mlflow.log_param("alpha", 0.5)
    mlflow.log_metric("plain", 3)
open("score.json", "w").write("1")
"""
LIVE = """
from dvclive import Live

with Live(save_dvc_exp=False) as live:
    for step in range(3):
        live.log_metric("plain", step)
        live.next_step()
"""


def test_plain_mlflow(tmp_path: Path) -> None:
    """What a script logs by plain MLflow calls is in the same row, with the script unchanged."""
    stages = {"train": one({"cmd": "python train.py", "deps": ["train.py"]})}
    project = repository(tmp_path / "project", stages, files={"train.py": PLAIN})
    adopted(project, 1)
    assert command(project) == "dvc-mlflow run python train.py"
    project.dvc("repro", "-q")
    (row,) = project.rows()
    assert row.data.metrics["plain"] == 3
    assert row.data.params["alpha"] == "0.5"
    assert row.data.tags["lock.train"]


@pytest.mark.skipif(not find_spec("dvclive"), reason="DVCLive is not installed")
def test_dvclive(tmp_path: Path) -> None:
    """What DVCLive writes is in the row: the curve, and the last value."""
    more = {"plots": [{"dvclive/plots": {"cache": False}}], "deps": ["train.py"]}
    metrics = [{"dvclive/metrics.json": {"cache": False}}]
    stages = {"train": {"cmd": "python train.py", "metrics": metrics, **more}}
    project = repository(tmp_path / "project", stages, files={"train.py": LIVE})
    adopted(project, 1)
    project.dvc("repro", "-q")
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "train/plain")
    assert [point.value for point in history] == [0, 1, 2]
