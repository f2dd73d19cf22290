"""Bring a result's files into a checkout of its own: DVC's cache, its remotes, git, and md5s."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dvc.config import Config, ConfigError
from dvc.config_schema import RelPath
from dvc.dependency import ParamsDependency
from dvc.dirs import site_cache_dir

from ..pipeline.stages import Stage, is_below, is_inside, overlap
from .files import File
from .hashing import file_has_md5, file_md5
from .opened import errors_reported
from .past import lock_as_now, old_files_read
from .remotes import fetch
from .running import Project


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


class Restored(NamedTuple):
    """What has become of a result's files, one line for each thing that the user should know."""

    problems: Sequence[str]
    """What is missing, or differs from dvc.lock."""
    status: Sequence[str]
    """What `dvc status` reports, if nothing is missing; the commit itself can be so."""


def restore(project: Project, stages: Sequence[Stage], main: Path, *, is_new: bool) -> Restored:
    """Bring in the outputs of these stages, and the data that they read, as dvc.lock has them.

    They come from DVC's cache, from git, from DVC's remote, or from where a `.dvc` file imports
    them, if the project at `main` has the same file. Unless the checkout `is_new`, a file that
    differs stays, as somebody may have edited it.
    """
    repo = project._repo
    names = {stage.name for stage in stages}
    own = [s for s in repo.index.stages if s.cmd and project._name(s) in names]
    unmade = {out.path for stage in stages if not stage.command for out in stage.outs}
    data = [s for s in repo.index.stages if not s.cmd and _is_read(s, own)]
    data += [s for s in repo.index.stages if unmade & {*map(project._path, s.outs)}]
    outs = [o for stage in (*own, *data) for o in stage.outs if o.hash_info and o.is_in_repo]
    stay = [] if is_new else [out for out in outs if out.exists and _wrong(out)]
    lacking = [out for out in outs if out.use_cache and out not in stay and not _check_out(out)]
    for out in lacking:
        _take_from_git(project, out)
    lacking = [out for out in lacking if not _is_there(out)]
    imports = [out for out in lacking if out.stage.is_import and not _is_same(out.stage, main)]
    wanted = [out for out in lacking if out not in imports]
    looked = fetch(repo, wanted) if wanted else ""
    lacking = [out for out in lacking if not _check_out(out)]
    for out in outs:
        if not (out.use_cache or out in stay):
            _take_from_git(project, out)
    problems: list[str] = []
    for out in lacking:
        where = _IMPORTED if out in imports else looked
        problems += _missing(out, where)
    for out in outs:
        if not out.use_cache or out in stay:
            problems += _differing(out, "delete it, and restore again" if out in stay else "")
            problems += _other_folder(project, out)
    problems += _missing_deps(project, own)
    return Restored(problems, [] if problems else _status(project, [*own, *data]))


_IMPORTED = "in DVC's cache, and the .dvc file that imports it is not as in the main repository"


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


def _check_out(out: Any) -> bool:
    """Bring in what DVC's cache has of an output; return whether it is all there, and right.

    `dvc checkout` itself would need the package of a remote, even if nothing is there to be had.
    """
    if _outside(out):
        return False
    if _is_there(out):  # DVC would remove what its cache lacks, and what somebody has added
        return True
    if _is_listed(out):
        with suppress(Exception):  # what is missing is found by its md5
            out.checkout(force=True, allow_missing=True)
    return _is_there(out)


def _is_there(out: Any) -> bool:
    """Whether an output that DVC keeps is all there, and right."""
    return out.exists and _is_listed(out) and not _wrong(out)


def _is_listed(out: Any) -> bool:
    """Whether it is known what is in an output that DVC keeps."""
    return not out.hash_info.isdir or out.get_obj() is not None


def _outside(out: Any) -> str:
    """Return a file in an output's list that leads out of it, as anybody could write the list."""
    tree = out.get_obj() if out.use_cache and out.hash_info.isdir else None
    names = ("/".join(key) for key, _, _ in tree or ())
    return next((name for name in names if not is_inside(name)), "")


def _take_from_git(project: Project, out: Any) -> None:
    """Replace the files of an output where any commit has the locked version."""
    output = project._output(out)
    for file in project.files(output) or ():
        path = Path(out.fs_path, *Path(file.path).relative_to(output.path).parts)
        if not (path.is_file() and file_has_md5(path, file.md5, out.hash_name)):
            _write(project, path, project._versions(out, file))


def _write(project: Project, path: Path, contents: Iterable[bytes]) -> bool:
    """Write the first of these contents, if there is any; return whether that was done.

    What is there can be a link, to DVC's cache or to anywhere.
    """
    for content in contents if project.is_inside(path.parent) else ():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return True
    return False


def _missing(out: Any, looked: str) -> Iterator[str]:
    """Yield what is missing of an output that DVC keeps, and what would bring it."""
    if outside := _outside(out):
        yield f"{_path(out)} is left out: its list of files has {outside!r}, which leads out of it"
        return
    cure = "`dvc pull` it where it still is, `dvc exp pull` its experiment, or run `dvc repro` here"
    if not (_is_listed(out) and out.exists):
        yield f"{_path(out)} (md5 {out.hash_info.value}) is missing: it is not {looked}; {cure}"
        return
    for file, (here, wanted) in _wrong(out).items():
        name, cached = os.path.relpath(file, out.repo.root_dir), out.cache.oid_to_path(wanted)
        reason = f"it is not {looked}; {cure}"
        if here:
            file.unlink()  # it came from there
            reason = f"{cached} is damaged, as its md5 is {here}; delete that, and restore again"
        yield f"{name} (md5 {wanted}) is missing: {reason}"


def _differing(out: Any, cure: str) -> Iterator[str]:
    """Yield what differs from dvc.lock in an output that git keeps, or that was there before."""
    if not out.exists:
        yield f"{_path(out)} (md5 {out.hash_info.value}) is missing: no commit has it"
    for file, (here, wanted) in _wrong(out).items():
        name = os.path.relpath(file, out.repo.root_dir)
        if here:
            what = f"{name} has the md5 {here}, dvc.lock has {wanted}"
            yield f"{what}; {cure or 'no commit has that'}"
        elif out.exists:
            yield f"{name} (md5 {wanted}) is missing: no commit has it"


def _other_folder(project: Project, out: Any) -> Iterator[str]:
    """Yield that a folder in git is not the one in dvc.lock, if that is known.

    DVC leaves outputs in a folder out of its md5, so that cannot be computed again.
    """
    others = (other for other in project._repo.index.outs if other is not out)
    if (
        out.use_cache
        or not out.hash_info.isdir
        or any(is_below(out.fs_path, o.fs_path) for o in others)
    ):
        return
    if out.exists and project._tree(out) is None:
        yield f"{_path(out)} (md5 {out.hash_info.value}) has other files in git than in dvc.lock"


def _path(item: Any) -> str:
    return str(os.path.relpath(item.fs_path, item.repo.root_dir))


def _wrong(out: Any) -> dict[Path, tuple[str, str]]:
    """Return the files of an output that differ from dvc.lock: their md5s here, and there.

    That of a missing file is "". DVC itself does not notice: it trusts that a write-protected file
    in its cache is intact.
    """
    files = [((), out.hash_info)]
    if out.hash_info.isdir:
        tree = out.get_obj() if out.use_cache else None
        files = [(key, info) for key, _, info in tree or () if is_inside("/".join(key))]
    found = {}
    for key, info in files:
        file = Path(out.fs_path, *key)
        if not file.is_file():
            found[file] = ("", str(info.value))
        elif out.hash_name.startswith("md5") and not file_has_md5(file, info.value, out.hash_name):
            found[file] = (file_md5(file), str(info.value))
    return found


def _missing_deps(project: Project, stages: Sequence[Any]) -> Iterator[str]:
    """Bring in the files that stages read and that only another commit has; yield the others."""
    repo = project._repo
    made = [out.fs_path for out in repo.index.outs]
    for dep in {dep.fs_path: dep for stage in stages for dep in stage.deps}.values():
        if not _is_local(dep) or dep.exists:
            continue
        if any(overlap(dep.fs_path, path) for path in made):
            continue
        if isinstance(dep, ParamsDependency):
            yield f"{_path(dep)} is missing: the row's commit lacks it; write its params there"
            continue
        oid = dep.hash_info.value if dep.hash_info else ""
        found = project._versions(dep, File(project._path(dep), oid, 0))
        if not _write(project, Path(dep.fs_path), found):
            known = f" (md5 {oid})" if oid else ""
            why = "neither git nor DVC keeps it; copy it here"
            if "\\" in dep.def_path and os.sep == "/":
                why = "only on Windows, DVC reads \\ in a path as /"
            yield f"{_path(dep)}{known} is missing: {why}"


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
