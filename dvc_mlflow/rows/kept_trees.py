"""A result as a git tree: the checkout as it was when a stage ended, kept by a commit of its own.

The tree equals that of the commit that `dvc exp run` makes of the result, and that of the user's
own commit of it, unless scripts are untracked. So any branch, tag or experiment with that tree can
restore it; `refs/rows/<commit>` keeps what nobody commits. DVC's cache keeps the outputs.
"""

import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import ProjectError
from ..git import ask, checkout, common_folder, git, names
from ..project.project import Project
from ..project.workspace import files_to_keep, holds, is_busy
from .origin import KeptTree
from .result import Result

REFS = "refs/rows"
# The subject of a commit, unless DVC ran other stages meanwhile, which can be half-way in dvc.lock:
# then it is the stage that ends the one row that it is for.
ALL = "All rows of this dvc.lock"

_LARGEST = 1_000_000  # bytes of an untracked file
_LARGEST_OUTPUT = 50_000_000  # bytes of an output that DVC leaves to git
# How untracked files end that restored code may need, and DVC's own.
_CODE = {".py", ".sh", ".R", ".r", ".jl", ".yaml", ".yml", ".toml"}
_CODE |= {".dvc", ".gitignore", ".dvcignore"}
_NOT_OURS = {"site-packages", "node_modules", "mlflow.db", "mlartifacts", "restored", ".dvc"}
# Two processes that keep the same state make the same commit.
_WHO = {"NAME": "dvc-mlflow", "EMAIL": "dvc-mlflow@localhost", "DATE": "2000-01-01T00:00:00Z"}


def of_result(result: Result, root: Path) -> KeptTree:
    """Return the tree of a result; raises `ProjectError`. `root` is the main repository."""
    project = result.project
    if result.origin.kept:
        return result.origin.kept
    subject = result.head.name if is_busy(project) else ALL
    kept = keep(project, root, result.origin.base, subject)
    changed = [stage.name for stage in result.scope() if not holds(project, stage.name)]
    lacks = [f"what {', '.join(changed)} ran with: code or inputs have changed since"]
    return kept._replace(lacks=[*kept.lacks, *lacks]) if changed else kept


def keep(project: Project, root: Path, base: str, subject: str) -> KeptTree:
    """Write the checkout with all its results as a tree, and keep it by a ref.

    Its commit follows on `base`, and its `subject` says for which row. `root` is the main
    repository: from DVC's temporary copies and from git worktrees the objects go there, too.
    Nothing in the checkout changes. Raises `ProjectError`.
    """
    here, top = project.root, project.top.resolve()
    main, index = common_folder(root), checkout(here) / ".git" / "index"
    with TemporaryDirectory() as folder:
        env = {
            "GIT_INDEX_FILE": f"{folder}/index",
            # Without the copy as an alternate: git would skip objects that vanish with it.
            "GIT_OBJECT_DIRECTORY": f"{main}/objects",
        }
        if main == index.parent and index.exists():  # it knows what has not changed
            shutil.copy2(index, f"{folder}/index")  # by its time, git sees what is too new to know
        elif base:
            git("read-tree", "HEAD", cwd=here, env=env)
        git("add", "-u", cwd=top, env=env)
        new, lacks = _untracked(project, top, env)
        if new:
            listed, options = os.fsencode("\0".join(new)), ("--add", "--replace", "-z", "--stdin")
            git("update-index", *options, cwd=top, text=listed, env=env)
        tree = os.fsdecode(git("write-tree", cwd=top, env=env)).strip()
        words = (tree, *([f"-p{base}"] if base else []), "-m", subject)
        who = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in _WHO.items()}
        commit = os.fsdecode(git("commit-tree", *words, cwd=here, env={**env, **who})).strip()
    git(f"--git-dir={main}", "update-ref", f"{REFS}/{commit}", commit)
    return KeptTree(commit, tree, lacks)


def is_hash(text: str) -> bool:
    """Whether a text is a whole hash of git's, no name, option or part of one."""
    return re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


def forget(root: Path, commit: str) -> bool:
    """Delete the ref of a commit, if it has one; return whether it had."""
    if not ask("rev-parse", "--verify", "-q", f"{REFS}/{commit}", cwd=root):
        return False
    git("update-ref", "-d", f"{REFS}/{commit}", cwd=root)
    return True


def find(root: Path, kept: KeptTree) -> str:
    """Return a commit with this tree of a branch, tag, experiment or row of this clone.

    If there is none, fetch the row's own from the git remote. Raises `ProjectError`.
    """
    globs = ("refs/exps", "refs/sweeps", REFS)
    ours = ("--branches", "--tags", "--remotes", *(f"--glob={each}" for each in globs))
    remotes = ask("remote", cwd=root).split()
    remote = "origin" if "origin" in remotes else next(iter(remotes), "")
    for _ in range(2):
        log = ask("log", "--format=%T %H", *ours, cwd=root).splitlines()
        commits = [commit for tree, commit in map(str.split, log) if tree == kept.tree]
        if commits:
            return kept.commit if kept.commit in commits else commits[0]
        if is_hash(kept.commit):
            ref = f"{REFS}/{kept.commit}"
            ask("fetch", "-q", "--no-write-fetch-head", remote, f"{ref}:{ref}", cwd=root)
    where = f"neither in this clone nor in {REFS} of its git remote"
    cure = "its maker can commit it, or push it: `dvc exp push`, or `git push origin 'refs/rows/*'`"
    raise ProjectError(f"the row's git tree is {where}; {cure}")


def _untracked(project: Project, top: Path, env: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the files that belong to the tree beside what git tracks, and those that it lacks.

    What a dep includes belongs to it, and so do scripts, as restored code may import them. What git
    ignores does not, unless it is an output that DVC leaves to git, or a dvc.lock.
    """
    deps, cached, others = files_to_keep(project)
    sizes, new, lacks = dict[str, int](), list[str](), list[str]()
    for name in names("ls-files", "--others", "--exclude-standard", "-z", cwd=top, env=env):
        path = top / name
        above = {path, *path.parents}
        is_code = path.suffix in _CODE or path.name in _CODE
        is_ours = not (above & cached or _NOT_OURS & {*Path(name).parts})
        if is_ours and (is_code or above & deps):
            sizes[name] = _LARGEST
    for path in others:
        for file in [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*"))):
            sizes[file.relative_to(top).as_posix()] = _LARGEST_OUTPUT
    for name, most in sizes.items():
        if name.endswith("/"):
            lacks.append(f"{name}: it is a git repository of its own")
        elif (top / name).lstat().st_size > most:
            lacks.append(f"{name}: it is larger than {most:,} bytes")
        else:
            new.append(name)
    return new, lacks
