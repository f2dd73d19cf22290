"""A result as a git tree: the checkout as it was when a stage ended, kept by a commit of its own.

The tree equals that of the commit that `dvc exp run` makes of the result, and that of the user's
own commit of it. So any branch, tag or experiment with that tree can restore it;
`refs/rows/<commit>` keeps what nobody commits. DVC's cache keeps the outputs.
"""

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import ProjectError
from ..git import ask, git, names, text
from ..project import FilesToKeep, Project
from .origin import KeptTree
from .result import Result

REFS = "refs/rows"

_LARGEST = 1_000_000  # bytes of an untracked file
_CODE = {".py", ".sh", ".R", ".jl"}  # how untracked files that restored code may need end
_INSTALLED = {"site-packages", "node_modules"}  # folders with others' code
_IGNORES = {".gitignore", ".dvcignore"}  # DVC and DVCLive write them beside outputs
_OWN = {"mlflow.db", "mlartifacts", "restored", ".dvc"}  # what the tool and DVC keep in a checkout
_LARGEST_OUTPUT = 50_000_000  # bytes of an output that DVC leaves to git
# Two processes that keep the same result make the same commit.
_WHO = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {
        "NAME": "dvc-mlflow",
        "EMAIL": "dvc-mlflow@localhost",
        "DATE": "2000-01-01T00:00:00Z",
    }.items()
}


def of_result(result: Result, root: Path) -> KeptTree | None:
    """Return the tree of a result, or None outside git; raises `ProjectError`.

    `root` is the main repository.
    """
    project = result.project
    if result.origin.kept:
        return result.origin.kept
    if not ask("rev-parse", "--git-dir", cwd=project.root):
        return None
    names = [stage.name for stage in result.scope()]
    kept = keep(project, root, names)
    changed = [n for n in names if not project.holds(n)]
    lacks = [f"what {', '.join(changed)} ran with: code or inputs have changed since"]
    return kept._replace(lacks=[*kept.lacks, *lacks]) if changed else kept


def keep(project: Project, root: Path, stages: Sequence[str]) -> KeptTree:
    """Write the checkout with the results of these stages as a tree, and keep it by a ref.

    `root` is the main repository: from DVC's temporary copies and from git worktrees the objects go
    there, too. Nothing in the checkout changes. Raises `ProjectError`.
    """
    needs, here, top = project.files_to_keep({*stages}), project.root, project.top.resolve()
    show = ("rev-parse", "--path-format=absolute")
    main, own_git = (text(*show, "--git-common-dir", cwd=folder) for folder in (root, here))
    index = Path(text(*show, "--git-path", "index", cwd=here))
    head = ask("rev-parse", "-q", "--verify", "HEAD", cwd=here)
    with TemporaryDirectory() as folder:
        own = {
            "GIT_INDEX_FILE": f"{folder}/index",
            # Without the copy as an alternate: git would skip objects that vanish with it.
            "GIT_OBJECT_DIRECTORY": f"{main}/objects",
        }
        if own_git == main and index.exists():  # git's own index knows what has not changed
            shutil.copy2(index, f"{folder}/index")  # by its time, git sees what is too new to know
        elif head:
            git("read-tree", head, cwd=here, env=own)
        tree, lacks = _write(top, needs, own)
        options = [f"-p{head}"] if head else []
        words = ("commit-tree", tree, *options, "-m", stages[-1])
        commit = os.fsdecode(git(*words, cwd=here, env={**own, **_WHO})).strip()
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
    """Return a commit with this tree from a branch, tag, experiment or row of this clone.

    If there is none, fetch the row's own from the git remote. Raises `ProjectError`.
    """
    globs = ("refs/exps", "refs/sweeps", REFS)
    ours = ("--branches", "--tags", "--remotes", *(f"--glob={each}" for each in globs))
    for _ in range(2):
        lines = ask("log", "--format=%T %H", *ours, cwd=root).splitlines()
        found = [line.partition(" ")[2] for line in lines if line.startswith(f"{kept.tree} ")]
        if found:
            return kept.commit if kept.commit in found else found[0]
        ref = f"{REFS}/{kept.commit}"
        with suppress(ProjectError):
            fetch = ("fetch", "-q", "--no-write-fetch-head", _remote(root), f"{ref}:{ref}")
            git(*fetch, cwd=root)
    where = f"neither in this clone nor in {REFS} of its git remote"
    cure = "its maker can commit it, or push it: `dvc exp push`, or `git push origin 'refs/rows/*'`"
    raise ProjectError(f"the git tree {kept.tree} is {where}; {cure}")


def _write(top: Path, needs: FilesToKeep, own: dict[str, str]) -> tuple[str, list[str]]:
    """Write the checkout as a tree; return it, and what it lacks."""
    git("add", "-u", cwd=top, env=own)
    new, lacks = _untracked(top, needs, own)
    for out in needs.uncached:  # in git, even where an untracked .gitignore hides them
        for file in [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file()):
            name = file.relative_to(top).as_posix()
            if file.stat().st_size > _LARGEST_OUTPUT:
                lacks.append(f"{name}: it is larger than {_LARGEST_OUTPUT:,} bytes")
            else:
                new.append(name)
    new += [file.relative_to(top).as_posix() for file in needs.locks]
    listed = os.fsencode("".join(f"{name}\0" for name in new))
    git("update-index", "--add", "--replace", "-z", "--stdin", cwd=top, text=listed, env=own)
    return os.fsdecode(git("write-tree", cwd=top, env=own)).strip(), lacks


def _untracked(top: Path, needs: FilesToKeep, own: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the untracked files that belong to the tree, and those that it lacks.

    What a dep includes belongs to it, and so do scripts where stages run or their deps are, as
    restored code may import them. What git ignores does not.
    """
    new, lacks, others = [], [], []
    for name in names("ls-files", "--others", "--exclude-standard", "-z", cwd=top, env=own):
        path = top / name
        above = {path, *path.parents}
        if above & needs.cached or _OWN & {*path.relative_to(top).parts}:
            continue
        is_near = bool(above & needs.folders)
        is_code = is_near and path.suffix in _CODE and not _INSTALLED & {*path.parts}
        if path in needs.files or above & needs.deps or is_code:
            if name.endswith("/"):
                lacks.append(f"{name}: it is a git repository of its own")
            elif path.lstat().st_size > _LARGEST:
                lacks.append(f"{name}: it is larger than {_LARGEST:,} bytes, and not tracked")
            else:
                new.append(name)
        elif is_near and not (path in needs.locks or above & needs.outs):
            others += [name] if path.name not in _IGNORES else []
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        lacks.append(f"{', '.join(others[:3])}{more}: untracked, neither a dep nor a script")
    return new, lacks


def _remote(root: Path) -> str:
    """Return the name of the git remote, `origin` if there are several."""
    remotes = ask("remote", cwd=root).split()
    return "origin" if "origin" in remotes or not remotes else remotes[0]
