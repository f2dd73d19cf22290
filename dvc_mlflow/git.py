"""Run git, in one way: from the checkout's root, and so that it runs nothing that a folder names.

A folder can look like a bare repository and have settings of its own, which name programs. So git
uses none that it comes upon, and no setting makes it run a hook, a monitor of the file system, a
pager, or a program that shows signatures or differences. The user's own settings count otherwise,
also those that the environment adds (`GIT_CONFIG_COUNT`).
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from .errors import ProjectError, masked

if TYPE_CHECKING:
    import subprocess  # slow for `run`, which mostly needs no git

_SETTINGS = (
    "safe.bareRepository=explicit",
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "log.showRoot=true",
    "log.showSignature=false",
    "submodule.recurse=false",
)
_RAW = ("--no-ext-diff", "--no-textconv")
_OPTIONS = {"log": _RAW, "diff-tree": _RAW}
"""Options of the commands that could let a program show differences or contents."""
_OTHERS = {
    # Of another repository, such as the one whose hook has started this process.
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
    # What they change, callers do not expect.
    "GIT_EXTERNAL_DIFF",
    "GIT_GLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
}


def checkout(here: Path | None = None) -> Path:
    """Return the root of the current checkout, which may be a git worktree or DVC's copy.

    Raises `ProjectError` outside git.
    """
    here = here or Path.cwd()
    for path in (here, *here.parents):
        if (path / ".git").exists():
            return path
    raise ProjectError(f"{here} is in no git repository, which dvc-mlflow needs: run `git init`")


def common_folder(here: Path) -> Path:
    """Return git's folder, which all worktrees of a repository share; raises `ProjectError`."""
    folder = checkout(here) / ".git"
    if folder.is_dir() and not folder.is_symlink():
        return folder  # that of a worktree or a submodule is elsewhere
    options = ("--path-format=absolute", "--git-common-dir")
    return Path(os.fsdecode(git("rev-parse", *options, cwd=here)).removesuffix("\n"))


def git(
    *arguments: str,
    cwd: Path | None = None,
    text: bytes = b"",
    env: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> bytes:
    """Run git in the checkout around `cwd`, and return what it prints; raises `ProjectError`.

    Paths are relative to the checkout's root. `text` is git's input, `env` is added to its
    environment, and it may take at most so many `seconds`.
    """
    import subprocess

    try:
        done = subprocess.run(
            _command(*arguments),
            cwd=checkout(cwd),
            input=text,
            capture_output=True,
            check=False,
            env={**_environment(), **(env or {})},
            timeout=seconds,
        )
    except FileNotFoundError:
        raise ProjectError("git is not on PATH: install it, or add its folder to PATH") from None
    except subprocess.TimeoutExpired:
        raise ProjectError(f"git {arguments[0]}: no answer within {seconds:g} s") from None
    if done.returncode:
        said = masked(" ".join(done.stderr.decode(errors="replace").split()))
        raise ProjectError(f"git {arguments[0]}: {said or done.returncode}")
    return done.stdout


def text(*arguments: str, cwd: Path | None = None) -> str:
    """Run git, and return what it prints without the last line's end; raises `ProjectError`."""
    return os.fsdecode(git(*arguments, cwd=cwd)).rstrip()


def ask(*arguments: str, cwd: Path | None = None, text: str = "") -> str:
    """Return git's output, or "" if git is missing, fails or refuses the repository."""
    try:
        return os.fsdecode(git(*arguments, cwd=cwd, text=os.fsencode(text))).strip()
    except (OSError, ProjectError):
        return ""


def names(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> list[str]:
    """Run git, and return what it prints with `-z`, such as paths; raises `ProjectError`."""
    return [name for name in os.fsdecode(git(*arguments, cwd=cwd, env=env)).split("\0") if name]


def glob(folder: str, pattern: str) -> str:
    """Return git's pathspec for a pattern in a folder of the repository."""
    return f":(top,glob){literal(folder)}/{pattern}" if folder else f":(top,glob){pattern}"


def literal(path: str) -> str:
    """Return a path as a pattern that only this path has."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def remote_url(root: Path) -> str:
    """Return the address of the git remote `origin`, or of the only one; "" if there is none.

    It is without users, passwords and tokens.
    """
    listed = ask("config", "-z", "--get-regexp", r"^remote\..*\.url$", cwd=root).split("\0")
    urls = dict(entry.split("\n", 1) for entry in listed if "\n" in entry)
    url = urls.get("remote.origin.url") or (next(iter(urls.values())) if len(urls) == 1 else "")
    return masked(url if "://" in url or Path(url).exists() else url.partition("?")[0])


def own_head(cwd: Path) -> tuple[str, str]:
    """Return the commit that a person has checked out, and its subject; "" if there is none.

    `dvc exp run` detaches HEAD, and commits there before the experiment's ref names the commit.
    """
    running = "refs/exps/exec/EXEC_BASELINE"
    shown = [f"--decorate-refs={ref}" for ref in ("HEAD", "refs/heads", running)]
    form = "--format=%H%x00%s%x00%D"
    lines = ask("log", "-2", "--first-parent", *shown, form, cwd=cwd).split("\n")
    head, *parents = [line.split("\0") for line in lines]
    is_dvcs = head[2:] == ["HEAD"] and any(running in names for *_, names in parents)
    commit, subject, *_ = parents[0] if is_dvcs else [*head, ""]
    return commit, subject


def is_published(commit: str, cwd: Path) -> bool:
    """Whether a branch, a tag or an experiment of DVC's has a commit in its history."""
    refs = ("refs/heads", "refs/remotes", "refs/tags", "refs/exps")
    return bool(ask("for-each-ref", "--count=1", "--contains", commit, *refs, cwd=cwd))


class Blobs:
    """Reads the files of any commit, with one `git cat-file` until it is closed.

    In a partial clone, it does not wait for a server to send what git has not.
    """

    def __init__(self, top: Path) -> None:
        self._top = top
        self._process: subprocess.Popen[bytes] | None = None
        self._input: BinaryIO
        self._output: BinaryIO

    def read(self, name: str) -> bytes | None:
        """Return a file by its git object, or as `<commit>:<path>`; None if there is none.

        A link is followed to a file of the same commit.
        """
        kind, content = self._object(name)
        return content if kind == b"blob" else None  # a link can lead out, or nowhere

    def has(self, name: str) -> bool:
        """Whether git has a file or a folder, named as `<commit>:<path>`."""
        return bool(self._object(name)[0])

    def _object(self, name: str) -> tuple[bytes, bytes]:
        """Return kind and content of an object, or nothing twice if git lacks it."""
        if "\n" in name:  # git's input ends at a line's end
            return b"", b""
        if self._process is None:
            self._start()
        with suppress(BrokenPipeError):  # git refuses this repository
            self._input.write(os.fsencode(f"{name}\n"))
            self._input.flush()
        head = self._output.readline().split()
        if head[-1:] in ([], [b"missing"], [b"ambiguous"]):
            return b"", b""
        content = self._output.read(int(head[-1]))
        self._output.read(1)
        return head[1], content

    def _start(self) -> None:
        import subprocess

        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            _command("cat-file", "--batch", "--follow-symlinks"),
            cwd=self._top,
            env={**_environment(), **NO_SERVER},
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
        )
        self._input = cast("BinaryIO", self._process.stdin)
        self._output = cast("BinaryIO", self._process.stdout)

    def close(self) -> None:
        """End `git cat-file`."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


NO_SERVER = {"GIT_NO_LAZY_FETCH": "1"}
"""In a partial clone, git waits for no server to send what it lacks."""


def _command(*arguments: str) -> list[str]:
    """Return the command line of git; its own options can stand before the command's name."""
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    at = next((i for i, word in enumerate(arguments) if not word.startswith("-")), 0)
    options, name, rest = arguments[:at], arguments[at], arguments[at + 1 :]
    return ["git", "--no-pager", *settings, *options, name, *_OPTIONS.get(name, ()), *rest]


def _environment() -> dict[str, str]:
    """Return the environment without what leads git to another repository or to other paths."""
    inherited = {key: value for key, value in os.environ.items() if key not in _OTHERS}
    return {**inherited, "GIT_OPTIONAL_LOCKS": "0"}  # nobody's `git commit` waits for the index
