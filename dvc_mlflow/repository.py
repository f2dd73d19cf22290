"""Run git, and find the checkout, the main repository and the address of the store."""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from .errors import ProjectError, StoreError
from .pipeline.tags import DEFAULT, PROCESSOR, PYTHON, REQUIREMENTS

if TYPE_CHECKING:
    import subprocess  # slow for `run`, which mostly needs no git


def checkout(here: Path | None = None) -> Path:
    """Return the root of the current checkout, which may be a git worktree or DVC's copy.

    Without git, that is the root of the DVC project.
    """
    here = here or Path.cwd()
    parents = (here, *here.parents)
    marked = [path for mark in (".git", ".dvc") for path in parents if (path / mark).exists()]
    return marked[0] if marked else here


def main_repository() -> Path:
    """Return the project in the main repository, even from a git worktree or DVC's copy.

    The project is the outermost DVC project of the checkout, which need not be the checkout's root.
    """
    here = checkout()
    dvc_root = os.environ.get("DVC_ROOT")  # may be stale, inherited from a shell
    if dvc_root and here.is_relative_to(Path(dvc_root, ".dvc", "tmp")):
        here = Path(dvc_root)
    parents = [Path.cwd(), *Path.cwd().parents]
    projects = [path for path in parents if path.is_relative_to(here) and (path / ".dvc").is_dir()]
    inner = projects[-1].relative_to(here) if projects else Path()
    git_folder = here / ".git"
    if git_folder.is_dir() and not git_folder.is_symlink():
        return here / inner
    first = ask("-C", str(here), "worktree", "list", "--porcelain").partition("\n")[0]
    main = Path(first.removeprefix("worktree "), inner)
    # For a submodule git lists its folder in .git, for a bare repository the repository itself.
    return main if first and (main / ".dvc").is_dir() else here / inner


def environment(requirements_md5: str) -> dict[str, str]:
    """Return the tags of what runs the code: Python, the pinned packages and the processor."""
    import platform
    import re

    info = Path("/proc/cpuinfo")
    known = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return {
        PYTHON: platform.python_version(),
        REQUIREMENTS: requirements_md5,
        PROCESSOR: known[1] if known else platform.processor() or platform.machine(),
    }


def git(
    *arguments: str,
    cwd: Path | None = None,
    text: bytes = b"",
    env: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> bytes:
    """Run git with `text` as its input, and return what it prints; raises `ProjectError`.

    It uses the current repository, whatever a git hook has set; `env` is added to its environment.
    It may take at most so many `seconds`.
    """
    import subprocess

    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            input=text,
            capture_output=True,
            check=False,
            env={**_own_environment(), **(env or {})},
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ProjectError(f"git {arguments[0]}: no answer within {seconds:g} s") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ProjectError(f"git {arguments[0]}: {said or done.returncode}")
    return done.stdout


def text(*arguments: str, cwd: Path | None = None) -> str:
    """Run git, and return what it prints without the last line's end; raises `ProjectError`."""
    return os.fsdecode(git(*arguments, cwd=cwd)).rstrip()


def tree(top: Path, commit: str, path: str = ".") -> Iterator[tuple[str, str, str]]:
    """Yield path, mode and git object of each file of a commit; raises `ProjectError`.

    `top` is the checkout's root, and `path` in it limits them to a file or a folder.
    """
    options = ("ls-tree", "-r", "-z", "--full-tree", commit, "--", path)
    for entry in filter(None, os.fsdecode(git(*options, cwd=top)).split("\0")):
        head, _, file = entry.partition("\t")
        mode, _, blob = head.split()
        yield file, mode, blob


def _own_environment() -> dict[str, str]:
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
    return {key: value for key, value in os.environ.items() if key not in elsewhere}


class Blobs:
    """Reads the files of any commit, with one `git cat-file` until it is closed."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._process: subprocess.Popen[bytes] | None = None
        self._input: BinaryIO
        self._output: BinaryIO

    def read(self, name: str) -> bytes | None:
        """Return a file by its git object, or as `<commit>:<path>`; None if there is none."""
        if "\n" in name:
            return None
        if self._process is None:
            self._start()
        try:
            self._input.write(os.fsencode(f"{name}\n"))
            self._input.flush()
        except BrokenPipeError:  # git refuses this repository
            return None
        head = self._output.readline().split()
        if head[-1:] in ([], [b"missing"], [b"ambiguous"]):
            return None
        content = self._output.read(int(head[-1]))
        self._output.read(1)
        return content if head[1] == b"blob" else None

    def _start(self) -> None:
        import subprocess

        pipe, command = subprocess.PIPE, ["git", "cat-file", "--batch"]
        self._process = subprocess.Popen(
            command,
            cwd=self._top,
            env=_own_environment(),
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


def check_git() -> None:
    """Raise `ProjectError` if this is a git checkout, and git is not installed or refuses it."""
    import shutil

    top = checkout()
    if (top / ".git").exists():
        if not shutil.which("git"):
            raise ProjectError("git is not on PATH: install it, or add its folder to PATH")
        git("rev-parse", "--git-dir", cwd=top)  # git refuses that of another user


def is_experiment(ref: str) -> bool:
    """Whether a ref below refs/exps is an experiment; DVC's own have fewer parts."""
    return ref.count("/") == 4


def ask(*arguments: str, cwd: Path | None = None) -> str:
    """Return git's output, or "" if git is missing, fails or refuses the repository."""
    try:
        return text(*arguments, cwd=cwd).strip()
    except (OSError, ProjectError):
        return ""


def address(root: Path) -> str:
    """Return the address of the store: `MLFLOW_TRACKING_URI`, or the main repository's own.

    A relative path is taken from the main repository, because DVC's temporary copies are deleted.
    Raises `StoreError` if MLflow would misread the repository's path.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    scheme, slashes, path = given.partition(":///")
    is_relative = scheme == "sqlite" and slashes and not path.startswith(("/", "file:"))
    if (is_relative or not given) and set("?#%") & set(str(root)):
        rule = "the path of the repository must not contain ?, # or %"
        raise StoreError(str(root), rule, "move it, or set MLFLOW_TRACKING_URI")
    if is_relative:
        return f"sqlite:///{root / path}"
    return given or own_address(root)


def own_address(root: Path) -> str:
    """Return the address of the database in the main repository."""
    return f"sqlite:///{root}/mlflow.db"


def default_experiment(root: Path, folder: str = "") -> str:
    """Return the name of the experiment of the repository at `root`, or of a nested project's.

    In its own store, that is the one with the tag, as the repository may have been renamed since.
    """
    database = root / "mlflow.db"
    if address(root) == own_address(root) and database.exists():
        import sqlite3

        tagged = "SELECT name FROM experiments JOIN experiment_tags USING (experiment_id)"
        values = [DEFAULT, folder or "."]
        with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as store:
            if row := store.execute(f"{tagged} WHERE key = ? AND value = ?", values).fetchone():
                return str(row[0])
    return "/".join(filter(None, [_remote_name(root) or checkout(root.resolve()).name, folder]))


def former_experiment(root: Path, folder: str = "") -> str:
    """Return the name that 2.0.0 gave the default experiment: that of the checkout's folder."""
    return "/".join(filter(None, [checkout(root.resolve()).name, folder]))


def remote_url(root: Path) -> str:
    """Return the address of the git remote: `origin`, or the only one; "" if there is none."""
    listed = ask("config", "--get-regexp", r"^remote\..*\.url$", cwd=root).splitlines()
    urls = dict(line.split(" ", 1) for line in listed if " " in line)
    return urls.get("remote.origin.url") or (next(iter(urls.values())) if len(urls) == 1 else "")


def _remote_name(root: Path) -> str:
    """Return `owner/name` of the git remote, or "" if there is none.

    It is the same for all clones, whatever their folders are called and how they reach the remote.
    """
    import re  # slow for `run`

    url = remote_url(root)
    path = re.sub(r"^\w[\w+.-]*://[^/]*|^[^/:]*:", "", url)  # https://host/path, or host:path
    parts = [
        part
        for part in path.rstrip("/").removesuffix(".git").split("/")
        if part not in ("", ".", "..")
    ]
    is_here = path == url or url.startswith("file:")  # a folder: only its name says something
    return "/".join(parts[-1:] if is_here else parts)


def project_folder() -> str:
    """Return the folder of the DVC project around the working directory, or "" at the top."""
    root = project_root()
    return folder_of(root, checkout()) if root else ""


def project_root(here: Path = Path()) -> Path | None:
    """Return the root of the DVC project around a folder, if there is one."""
    here = here.absolute()
    return next((path for path in (here, *here.parents) if (path / ".dvc").is_dir()), None)


def folder_of(project: Path, top: Path) -> str:
    """Return the folder of a DVC project in a checkout, or "" if it is the top, or not inside."""
    folder = project.relative_to(top).as_posix() if project.is_relative_to(top) else "."
    return "" if folder == "." else folder
