"""Restore the bytes of an MLflow row in a separate folder: `python -m bridge.restore RUN`.

The folder is a git worktree in restored/, at the row's commit, with the row's code, params and
files. Nothing runs, and nothing outside the folder changes.
"""

import argparse
import getpass
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from .record import provenance
from .record.checked import Row, read  # before MLflow, which it sets up

# isort: split
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from mlflow.utils.mlflow_tags import MLFLOW_USER

from dvc_mlflow.repository import main_repository

from .record.files import dvc_config
from .record.provenance import git
from .run.errors import StageError
from .run.files import exclusive, md5, replacing


def main() -> None:
    """Restore the row that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bridge.restore")
    parser.add_argument("run", nargs="?", default="", help="the run id of a row in MLflow")
    parser.add_argument("--apply", action="store_true", help="apply another user's patch")
    given = parser.parse_args()
    for name in ("dvc", "dvc_data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise
    try:
        if not re.fullmatch(r"\w+", given.run):
            rule = "RUN must be the run id of a row, as shown on its page in MLflow"
            raise StageError(f"{rule}; received {given.run!r}")
        root = main_repository().resolve()
        row = read(root, given.run)
        with exclusive(root / "restored", "another row is being restored"):
            restore(root, row, given.apply)
    except (StageError, DvcException, OSError) as error:
        sys.exit(f"{error}")


def restore(root: Path, row: Row, apply: bool) -> None:
    """Make the row's folder if it does not exist, add what it lacks, and report."""
    tree, exists = _place(root, row)
    if not exists:
        _check_patch(row, apply)
        _make(root, tree, row)
    shown = tree.relative_to(root)
    # The folder comes from the row, and its commit could make a link of it that leads elsewhere.
    with chdir(_target(tree, f"{row.folder}/dvc.yaml").parent):
        restored, problems = _fill(tree, row)
    print(f"{shown}: {'already exists' if exists else 'created'}, at commit {row.commit}")
    for path in restored:
        digest = row.md5s[path]
        tags = [f", {k}" for k, v in row.tags.items() if v == digest and k.endswith(".md5")]
        print(f"{path}: md5 {digest} is the row's{''.join(tags[:1])}")
    for key, here in provenance.environment().items():
        if row.tags.get(key, here) != here:
            print(f"{key}: the row was made with {row.tags[key]}; here it is {here}")
    if problems:
        raise StageError("\n".join(f"{shown}: {problem}" for problem in problems))
    print(f"{shown}: restored; `dvc status` reports that its stages are up to date")


def _check_patch(row: Row, apply: bool) -> None:
    """Show another user's uncommitted code; raise `StageError` if it is not to be applied."""
    user = row.tags.get(MLFLOW_USER, "")
    if row.patch and user != getpass.getuser() and not apply:
        text = row.patch.decode(errors="replace")  # its escape sequences must not reach a terminal
        print("".join(c if c.isprintable() or c in "\n\t" else "?" for c in text))
        problem = f"has the uncommitted code above, by the user {user!r}"
        raise StageError(f"{row.run_id}: {problem}; APPLY=1 applies it")


def _place(root: Path, row: Row) -> tuple[Path, bool]:
    """Return the row's folder, and whether it exists; two rows can have the same name."""
    name = re.sub(r"[^\w.=+-]+", "-", row.name).strip("-.")[:80] or row.run_id
    for tree in (root / "restored" / name, root / "restored" / f"{name}-{row.run_id[:8]}"):
        if not tree.exists():
            return tree, False
        with suppress(StageError, OSError):
            _attach(root, tree)
            if _mark(tree).read_text() == row.run_id:
                return tree, True
    raise StageError(f"{tree}: exists, but is not this row's folder; move it away")


def _attach(root: Path, tree: Path) -> None:
    """Let a folder and its repository find each other after both were moved or copied.

    A copied folder names the repository that it was copied from, and git would write there.
    """
    git_dir = git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=root).strip()
    own = Path(os.fsdecode(git_dir), "worktrees", Path((tree / ".git").read_text().strip()).name)
    if own.is_dir() and (tree / ".git").read_text() != f"gitdir: {own}\n":
        (tree / ".git").write_text(f"gitdir: {own}\n")
        git("worktree", "repair", str(tree), cwd=root)


def _mark(tree: Path) -> Path:
    """Return the file in git's own directory that names the row of a folder."""
    return tree / os.fsdecode(git("rev-parse", "--git-path", "restored", cwd=tree)).strip()


def _make(root: Path, tree: Path, row: Row) -> None:
    """Make the row's folder, whole or not at all, without the files to be restored."""
    # Without the user's hooks. Forced, because git still lists a deleted folder.
    add = ["worktree", "add", "--force", "--detach", "--", str(tree), row.commit]
    try:
        git("-c", f"core.hooksPath={os.devnull}", *add, cwd=root)
        if row.patch:
            git("apply", "--whitespace=nowarn", "-", cwd=tree, text=row.patch)
        for path in row.md5s:
            if (found := _target(tree, path)).is_dir():
                shutil.rmtree(found)
            found.unlink(missing_ok=True)
        if row.params:
            with replacing(_target(tree, f"{row.folder}/{row.params_file}")) as partial:
                partial.write_bytes(row.params)
        _share_cache(root, tree)
        _mark(tree).write_text(row.run_id)
    except BaseException:
        with suppress(StageError):
            git("worktree", "remove", "--force", str(tree), cwd=root)
        raise


def _share_cache(root: Path, tree: Path) -> None:
    """Let the folder's DVC projects use the caches and the remotes of the main repository."""
    top = Path(os.fsdecode(git("rev-parse", "--show-toplevel", cwd=root)).strip())
    for dvc in tree.glob("**/.dvc"):
        known = dvc_config(top / dvc.parent.relative_to(tree))
        with Config(dvc, validate=False).edit("local") as config:
            config["cache"], config["remote"] = known["cache"], known["remote"]
            config["core"] = {k: v for k, v in known["core"].items() if k == "remote"}


def _fill(tree: Path, row: Row) -> tuple[list[str], list[str]]:
    """Add the missing files; return the files that match the row's, and any problems."""
    restored: list[str] = []
    problems: list[str] = []
    lacking: list[str] = []
    with Repo() as repo:
        stages = _stages_of(repo, tree, row)
        md5s = _md5s(tree, row, stages)
        missing = [path for path in md5s if not _target(tree, path).exists()]
        why = _fetch(repo, tree, row, stages, md5s) if missing else ""
        for path, digest in md5s.items():
            if not digest or not (tree / path).exists():
                lacking.append(f"{path} (md5 {digest or 'unknown'})")
            elif (here := md5(tree / path)) != digest:
                problems.append(f"{path} has the md5 {here}, the row has {digest}")
            elif path in row.md5s:
                restored.append(path)
        if lacking:
            cure = "`dvc repro` in that folder makes them again"
            problems.append(f"lacks {', '.join(lacking)}: {why}; {cure}")
        if not problems:
            names = [stage.addressing for stage in stages]
            for name in names if missing else []:
                repo.commit(name, force=True)
            changes = repo.status(names)
            problems = [f"`dvc status` of {name}: {what}" for name, what in changes.items()]
    return restored, problems


def _stages_of(repo: Any, tree: Path, row: Row) -> list[Any]:
    """Return the stages that make the row's files, and those that these depend on."""
    names = {out.stage.addressing for out in repo.index.outs if _path(tree, out) in row.md5s}
    stages = {stage for name in names for stage in repo.stage.collect(name, with_deps=True)}
    return sorted(stages, key=lambda stage: str(stage.addressing))


def _md5s(tree: Path, row: Row, stages: Sequence[Any]) -> dict[str, str]:
    """Return the md5s of the row's files and of the other outputs of its stages.

    The others come from dvc.lock if it has the same result; otherwise they are unknown, "".
    """
    md5s = {**row.md5s}
    for stage in stages:
        outs = {_path(tree, out): out.hash_info.value for out in stage.outs}
        same = all(row.md5s.get(path, digest) == digest for path, digest in outs.items())
        for path, digest in outs.items():
            md5s.setdefault(path, digest if same and digest else "")
    return md5s


def _fetch(repo: Any, tree: Path, row: Row, stages: Sequence[Any], md5s: Mapping[str, str]) -> str:
    """Add missing files from DVC's cache, the row or DVC's remote; return where it looked."""
    with repo.lock:
        for stage in stages:
            for out in stage.outs:
                out.hash_info, out.meta = HashInfo("md5", md5s[_path(tree, out)]), Meta()
            stage.dump(update_pipeline=False)
    outs = [out for stage in stages for out in stage.outs if not Path(out.fs_path).exists()]
    cached = [out.fs_path for out in outs if out.use_cache]
    why = "neither in DVC's cache, nor with the row, nor in DVC's remote"
    with suppress(DvcException):
        repo.checkout(cached or [stage.addressing for stage in stages])
    for path, content in row.whole.items():
        if not (tree / path).exists():
            with replacing(_target(tree, path)) as partial:
                partial.write_bytes(content)
    if cached := [path for path in cached if not Path(path).exists()]:
        try:
            repo.fetch(cached)
        except Exception as error:  # whatever a remote's library raises
            why += f" ({error})".replace("\n", " ")
        with suppress(DvcException):
            repo.checkout(cached)
    return why


def _target(tree: Path, path: str) -> Path:
    """Return where a file goes; raise `StageError` if a link leads elsewhere.

    The file itself may be a link, as DVC makes with `cache.type symlink`.
    """
    target = tree / path
    if target.parent.resolve() != target.parent:
        raise StageError(f"{target}: a link leads out of it")
    return target


def _path(tree: Path, out: Any) -> str:
    """Return the path of a stage's output within the folder."""
    return os.path.relpath(out.fs_path, tree)


if __name__ == "__main__":
    main()
