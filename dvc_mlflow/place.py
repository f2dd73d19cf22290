"""Where things are: the main repository, its projects, and the address of MLflow's store."""

import os
import re
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from .errors import ProjectError, StoreError
from .git import checkout, common_folder, glob, names, remote_url
from .pipeline.tags import DEFAULT


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
    common = common_folder(here)
    # That of a submodule is in its parent's .git, and that of a bare repository the repository.
    main = common.parent / inner
    return main if common.name == ".git" and (main / ".dvc").is_dir() else here / inner


def own_folder(root: Path) -> Path:
    """Return the folder of the tool's own files, for the project in the main repository at `root`.

    It is in git's folder, where no clone brings anything, and which git has found trustworthy. Only
    an unpacked archive can bring a link. Raises `ProjectError` at one, or if it cannot be made.
    """
    folder = common_folder(root)
    for part in ("dvc-mlflow", *folder_of(root, checkout(root)).split("/")):
        folder /= part
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ProjectError(f"{folder}: {error.strerror}") from None
        if folder.is_symlink():
            raise ProjectError(f"{folder} is a link; delete it")
    return folder


def address(root: Path) -> str:
    """Return the address of the store: `MLFLOW_TRACKING_URI`, or the main repository's own.

    A relative path is taken from the main repository, because DVC's temporary copies are deleted.
    Raises `StoreError` if MLflow would misread the repository's path.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    scheme, slashes, path = uri.partition(":///")
    is_relative = scheme == "sqlite" and slashes and not path.startswith(("/", "file:"))
    if (is_relative or not uri) and set("?#%") & set(str(root)):
        rule = "the path of the repository must not contain ?, # or %"
        raise StoreError(str(root), rule, "move it, or set MLFLOW_TRACKING_URI")
    if is_relative:
        return f"sqlite:///{root / path}"
    return uri or own_address(root)


def own_address(root: Path) -> str:
    """Return the address of the repository's own database."""
    return f"sqlite:///{store_folder(root)}/mlflow.db"


@cache
def store_folder(root: Path) -> Path:
    """Return the folder of the repository's own database, and of the files of its rows.

    Where a commit brings what has its name, that is left alone, and the folder is the tool's.
    """
    return own_folder(root) if why_not_in_tree(root) else root


def artifacts_folder(root: Path) -> Path:
    """Return where the files of rows are, unless a server keeps them: beside the database."""
    file = file_of(address(root))
    return (file.parent if file else store_folder(root)) / "mlartifacts"


def default_experiment(root: Path, folder: str = "") -> str:
    """Return the name of the experiment of the repository at `root`, or of a nested project's.

    In its own store, that is the one with the tag, as the repository may have been renamed since.
    """
    if address(root) == own_address(root):
        tagged = "SELECT name FROM experiments JOIN experiment_tags USING (experiment_id)"
        query = f"{tagged} WHERE key = ? AND value = ?"
        if name := _first(store_folder(root) / "mlflow.db", query, DEFAULT, folder or "."):
            return name
    return "/".join(filter(None, [_remote_name(root) or checkout(root.resolve()).name, folder]))


def file_of(address: str) -> Path | None:
    """Return the file of an SQLite database, or None if the store is another one."""
    scheme, _, path = address.partition(":///")
    is_file = scheme == "sqlite" and path and not path.startswith("file:")
    return Path(path.partition("?")[0]) if is_file else None


def has_experiment(root: Path, name: str) -> bool:
    """Whether the store has an experiment; a server makes what it lacks itself."""
    database = file_of(address(root))
    query = "SELECT name FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
    return database is None or bool(_first(database, query, name))


def _first(database: Path, query: str, *values: str) -> str:
    """Return the first answer of MLflow's database, or "": to import MLflow would take seconds."""
    if database.exists():
        import sqlite3

        with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as store:
            return str((store.execute(query, values).fetchone() or [""])[0])
    return ""


def why_not_in_tree(root: Path) -> str:
    """Return why the repository's own store is not in its work tree; "" if it is.

    What a commit brings can name any place of this machine as that of a row's files.
    """
    return why_not_own(root, "mlflow.db*", "mlartifacts")


def why_not_own(root: Path, *patterns: str) -> str:
    """Return why what has one of these names in a project is not the tool's; "" if it may be."""
    for pattern in patterns:
        if link := next((path for path in root.glob(pattern) if path.is_symlink()), None):
            return f"{link.name} is a link"
    folder = folder_of(root, checkout(root))
    tracked = names("ls-files", "-z", "--", *(glob(folder, each) for each in patterns), cwd=root)
    return f"{tracked[0]} is tracked by git" if tracked else ""


def _remote_name(root: Path) -> str:
    """Return `owner/name` of the git remote, or "" if there is none.

    It is the same for all clones, whatever their folders are called and how they reach the remote.
    """
    url = remote_url(root)
    is_address = "://" in url
    # https://host/path?query#fragment, or host:path
    path = (
        re.sub(r"^\w[\w+.-]*://[^/]*|[?#].*", "", url)
        if is_address
        else re.sub(r"^[^/:]*:", "", url)
    )
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
