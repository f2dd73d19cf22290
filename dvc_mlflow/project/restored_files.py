"""Bring a result's files into a checkout of its own: from DVC's cache, git, and DVC's remotes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dvc.config import Config, ConfigError
from dvc.config_schema import RelPath
from dvc.dependency import ParamsDependency
from dvc.dirs import site_cache_dir

from ..git import ask
from ..pipeline.stages import Stage, is_below, is_inside, overlap
from .at_commits import lock_as_now, old_files_read
from .dvc_repo import errors_reported
from .files import File
from .hashing import file_has_md5, file_md5
from .lock_entries import is_old
from .project import Project
from .remotes import fetch, nothing_deleted


def share(main: Path, own: Path) -> None:
    """Let the project at `own` use the cache and the remotes of the project at `main`.

    Settings that are local to the main repository count, too; those of `own` name no other place
    where DVC writes. Raises `ProjectError`.
    """
    dvc, local = main / ".dvc", own / ".dvc"
    with errors_reported():
        known = Config(str(dvc), validate=False)
        known["cache"].setdefault("dir", RelPath(str(dvc / "cache")))
        local.mkdir(exist_ok=True)  # a repository can keep it out of git
        its_core = Config(str(local), validate=False)["core"]
        core = {}
        if its_core.get("site_cache_dir") != (place := known["core"].get("site_cache_dir")):
            core = {"site_cache_dir": place or site_cache_dir()}
        if ask("config", "core.worktree", cwd=own):
            core["no_scm"] = True  # in a worktree of a submodule, DVC would look for that
        given = {"cache": known["cache"], "core": core}
        remotes = {key: value for key, value in known["core"].items() if key == "remote"}
        whole = {**given, "remote": known["remote"], "core": {**core, **remotes}}
        # A remote of the same name can have had settings that do not go with those of today.
        for sections in (whole, given):
            with suppress(ConfigError):
                with Config(str(local), validate=False).edit("local") as config:
                    config.update(sections)
                return


@contextmanager
def restored_project(main: Path) -> Iterator[Project]:
    """Yield the project around the working directory, as `record` would read its commit.

    Its settings and remotes are those of the project at `main`: a commit's can name programs. DVC
    reads locks from before its version 2.0, too. Raises `ProjectError`.
    """
    with old_files_read(lock_as_now), Project(main) as project:
        yield project


def restore(
    project: Project, stages: Sequence[Stage], main: Path, *, is_new: bool
) -> tuple[list[str], list[str]]:
    """Bring in the outputs of these stages, and the data that they read, as dvc.lock has them.

    Return what is missing or differs, one line each; then what `dvc status` reports if nothing is.
    They come from DVC's cache, from any commit of git, from DVC's remote, or from where a `.dvc`
    file imports them, if the project at `main` has the same file. Unless the checkout `is_new`, a
    file that differs stays, as somebody may have edited it.
    """
    repo = project._repo
    names = {stage.name for stage in stages}
    own = [s for s in repo.index.stages if s.cmd and project._name(s) in names]
    unmade = {out.path for stage in stages if not stage.command for out in stage.outs}
    data = [s for s in repo.index.stages if not s.cmd and _is_read(s, own)]
    data += [s for s in repo.index.stages if unmade & {*map(project._path, s.outs)}]
    outs = [o for stage in (*own, *data) for o in stage.outs if o.hash_info and o.is_in_repo]
    problems: list[str] = []
    with nothing_deleted():
        stay = [] if is_new else [out for out in outs if out.exists and _wrong(project, out)]
        lacking = [out for out in outs if out not in stay and not _bring(project, out)]
        kept = [out for out in lacking if out.use_cache and not _damaged(project, out)]
        imports = [out for out in kept if out.stage.is_import and not _is_same(out.stage, main)]
        wanted = [out for out in kept if out not in imports]
        looked = fetch(repo, wanted) if wanted else "in DVC's cache"
        for out in stay:
            problems += _problems(project, out, f"delete {_path(out)}, and restore again")
        for out in lacking:
            if not (out in wanted and _bring(project, out)):
                where = _IMPORTED if out in imports else looked
                reason = f"it is not {where}; {_CURE}" if out.use_cache else "no commit has it"
                problems += _problems(project, out, reason, _damaged(project, out))
    problems += _missing_deps(project, own)
    locks = {Path(s.path).with_suffix(".lock") for s in own if hasattr(s, "name")}
    if any(is_old(lock.read_text()) for lock in locks if lock.exists()):
        return problems, ["dvc.lock has the form of DVC 1, which `dvc` does not read any more"]
    return problems, [] if problems else _status(project, [*own, *data])


_IMPORTED = "in DVC's cache, and the .dvc file that imports it is not as in the main repository"
_CURE = "`dvc pull` it where it still is, `dvc exp pull` its experiment, or run `dvc repro` here"


def _is_same(stage: Any, main: Path) -> bool:
    """Whether the project at `main` has the same .dvc file: a commit's can lead anywhere."""
    name = os.path.relpath(stage.path, stage.repo.root_dir)
    try:
        return Path(main, name).read_bytes() == Path(f"{stage.path}").read_bytes()
    except OSError:
        return False


def _is_read(data: Any, stages: Sequence[Any]) -> bool:
    """Whether a .dvc file tracks something that one of the stages reads."""
    deps = [dep.fs_path for stage in stages for dep in stage.deps]
    return any(overlap(dep, out.fs_path) for out in data.outs for dep in deps)


def _bring(project: Project, out: Any) -> bool:
    """Bring in what DVC's cache and git have of an output; return whether it is all there.

    What is right stays: DVC would remove what its cache lacks, and what somebody has added.
    """
    if _outside(out):
        return False
    # Without a folder's list, DVC would remove what git has of it.
    if out.use_cache and _wrong(project, out) and out.get_obj() is not None:
        # `dvc checkout` itself would need the package of a remote, even if nothing is there.
        with suppress(Exception):  # what is missing is found by its md5
            out.checkout(force=True, allow_missing=True)
        for path, (_, here) in _wrong(project, out).items():
            if here:  # DVC trusts that a write-protected file in its cache is intact
                path.unlink()
    wrong = _wrong(project, out).items()
    return not [path for path, (md5, _) in wrong if not _take_from_git(project, out, path, md5)]


def _take_from_git(project: Project, item: Any, path: Path, md5: str) -> bool:
    """Write the version of a file with this md5, if any commit has it; return whether one has.

    What is there can be a link, to DVC's cache or to anywhere.
    """
    if md5.endswith(".dir") or not project.is_inside(path.parent):
        return False
    content = project.version(item, File(project._relative(f"{path}"), md5, 0))
    if content is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return True


def _outside(out: Any) -> str:
    """Return a file in an output's list that leads out of it, as anybody could write the list."""
    tree = out.get_obj() if out.use_cache and out.hash_info.isdir else None
    names = ("/".join(key) for key, _, _ in tree or ())
    return next((name for name in names if not is_inside(name)), "")


def _wrong(project: Project, out: Any) -> dict[Path, tuple[str, str]]:
    """Return the files of an output that are not as in dvc.lock: their md5s there, and here.

    That of a missing file is "". A folder whose files nobody can list stands for them.
    """
    files = {Path(out.fs_path): str(out.hash_info.value)}
    if out.hash_info.isdir and not out.use_cache:
        here = "of other files" if out.exists else ""
        return {} if _is_as_locked(project, out) else {p: (md5, here) for p, md5 in files.items()}
    if out.hash_info.isdir and (tree := project._tree(out)) is not None:
        names = (("/".join(key), info.value) for key, _, info in tree)
        files = {Path(out.fs_path, name): f"{md5}" for name, md5 in names if is_inside(name)}
    found = {}
    for path, md5 in files.items():
        if not path.is_file():
            found[path] = md5, ""
        elif out.hash_name.startswith("md5") and not file_has_md5(path, md5, out.hash_name):
            found[path] = md5, file_md5(path)
    return found


def _is_as_locked(project: Project, out: Any) -> bool:
    """Whether a folder that git keeps is the one in dvc.lock, as far as that is known.

    DVC leaves outputs in a folder out of its md5, so that cannot be computed again.
    """
    others = (other for other in project._repo.index.outs if other is not out)
    is_known = not any(is_below(out.fs_path, other.fs_path) for other in others)
    return out.exists and not (is_known and project._tree(out) is None)


def _damaged(project: Project, out: Any) -> dict[Path, str]:
    """Return those files of an output that are not here although DVC's cache has them, and where.

    They have not come from there, so their md5s are wrong.
    """
    lacking = (path_md5 for path_md5 in _wrong(project, out).items() if out.use_cache)
    found = ((path, Path(out.cache.oid_to_path(md5))) for path, (md5, _) in lacking)
    return {path: f"{cached}" for path, cached in found if cached.exists()}


def _problems(
    project: Project, out: Any, reason: str, damaged: Mapping[Path, str] = MappingProxyType({})
) -> Iterator[str]:
    """Yield what is missing of an output, or differs from dvc.lock, and what would bring it."""
    if outside := _outside(out):
        yield f"{_path(out)} is left out: its list of files has {outside!r}, which leads out of it"
        return
    whole = {Path(out.fs_path): (f"{out.hash_info.value}", "")}
    for path, (md5, here) in (_wrong(project, out) if out.exists else whole).items():
        name, why = os.path.relpath(path, out.repo.root_dir), reason
        if path in damaged:
            why = f"{damaged[path]} is damaged; delete that, and restore again"
        is_other = f"{name} has the md5 {here}, dvc.lock has {md5}"
        yield f"{is_other if here else f'{name} (md5 {md5}) is missing'}: {why}"


def _path(item: Any) -> str:
    return str(os.path.relpath(item.fs_path, item.repo.root_dir))


def _missing_deps(project: Project, stages: Sequence[Any]) -> Iterator[str]:
    """Bring in the files that stages read and that only another commit has; yield the others."""
    repo = project._repo
    made = [out.fs_path for out in repo.index.outs]
    for dep in {dep.fs_path: dep for stage in stages for dep in stage.deps}.values():
        if not _is_local(dep) or dep.exists or any(overlap(dep.fs_path, path) for path in made):
            continue
        oid = f"{dep.hash_info.value}" if dep.hash_info else ""
        if isinstance(dep, ParamsDependency):
            yield f"{_path(dep)} is missing: the row's commit lacks it; write its params there"
        elif not _take_from_git(project, dep, Path(dep.fs_path), oid):
            why = "neither git nor DVC keeps it; copy it here"
            if "\\" in dep.def_path and os.sep == "/":
                why = "only on Windows, DVC reads \\ in a path as /"
            yield f"{_path(dep)}{f' (md5 {oid})' if oid else ''} is missing: {why}"


def _is_local(dep: Any) -> bool:
    """Whether a dependency is a file of this machine, by how the commit names it."""
    return "://" not in f"{dep.def_path}"


def _status(project: Project, stages: Sequence[Any]) -> list[str]:
    """Return what `dvc status` reports of these stages, one line each."""
    # What lies elsewhere would be asked for as the commit says.
    stages = [s for s in stages if not s.is_import and all(map(_is_local, s.deps))]
    if not stages:
        return []
    try:
        changes = project._repo.status([s.addressing for s in stages], check_updates=False)
    except Exception as error:  # with what this version of DVC does not know
        return [" ".join(str(error).split())[:200] or type(error).__name__]
    told = {name: [e for e in found if e != "always changed"] for name, found in changes.items()}
    return [f"{name}: {entry}" for name, found in told.items() for entry in found]
