"""Bring a result's files into a checkout of its own: from DVC's cache, git, and DVC's remote."""

from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.config import Config, ConfigError
from dvc.config_schema import RelPath

from ..git import ask
from ..pipeline.stages import Stage, is_below, leads_out, overlap
from .at_commits import as_of_today
from .definitions import dvc_stage
from .dvc_errors import errors_reported
from .files import file_has_md5, md5_of, tree_of, version_of, why_not_fetched
from .project import Project


@contextmanager
def restored_project(main: Path, folder: Path) -> Iterator[Project]:
    """Yield the project in `folder`, as `record` would read its commit.

    Its settings and remotes are those of the project at `main`: a commit's can name programs. So
    they are for plain `dvc` in that folder, as far as they go with the commit's. Raises
    `ProjectError`.
    """
    with errors_reported():
        _share(main, folder)
    with chdir(folder), as_of_today(), Project(main) as project:
        yield project


def _share(main: Path, folder: Path) -> None:
    """Let plain `dvc` in the project at `folder` use the cache and remotes of that at `main`."""
    (folder / ".dvc").mkdir(exist_ok=True)  # a repository can keep it out of git
    settings = Config(f"{main}/.dvc", validate=False)
    settings["cache"].setdefault("dir", RelPath(f"{main}/.dvc/cache"))
    core = {key: value for key, value in settings["core"].items() if key == "remote"}
    if ask("config", "core.worktree", cwd=folder):
        core["no_scm"] = True  # in a worktree of a submodule, DVC would look for that
    shared = {"cache": settings["cache"], "core": core}
    # A remote of the same name can have had settings that do not go with those of today.
    for sections in ({**shared, "remote": settings["remote"]}, shared):
        with suppress(ConfigError):
            with Config(f"{folder}/.dvc", validate=False).edit("local") as config:
                config.update(sections)
            return


@errors_reported()
def restore(
    project: Project, stages: Sequence[Stage], main: Path, *, is_new: bool
) -> dict[str, str]:
    """Bring in the outputs of these stages, and the data that they read, as dvc.lock has them.

    They come from DVC's cache, from any commit of git, from DVC's remote, or from where a `.dvc`
    file imports them, if the project at `main` has the same file. Unless the checkout `is_new`, a
    file that differs stays, as somebody may have edited it. Return the files that are missing, each
    with the reason. Raises `ProjectError`.
    """
    outs, deps = _needed(project, stages)
    stay = [] if is_new else [out for out in outs if out.exists and _wrong(project, out)]
    lacking = [out for out in outs if out not in stay and not _bring(project, out)]
    wanted = [out for out in lacking if _may_be_fetched(project, out, main)]
    why = _fetch(project, wanted) if wanted else ""
    reasons = dict.fromkeys(stay, "another one is here; delete that, and restore again")
    lacking = [out for out in lacking if out not in wanted or not _bring(project, out)]
    reasons |= {out: _odd(out) or (why if out in wanted else _NOWHERE) for out in lacking}
    gone = [dep for dep in deps if not _take_from_git(project, dep, Path(dep.fs_path), md5_of(dep))]
    return {
        f"{project.relative(f'{path}')}{f' (md5 {md5})' if md5 else ''} is missing": reason
        for item, reason in (reasons | dict.fromkeys(gone, _NOWHERE)).items()
        for path, md5 in ((item.exists and _wrong(project, item)) or _whole(item)).items()
    }


_NOWHERE = "neither git nor DVC's cache has it"


def _fetch(project: Project, outs: Sequence[Any]) -> str:
    """Fetch outputs to DVC's cache; return why those that are still missing have not come."""
    why = why_not_fetched(project.remote, lambda: project.repo.fetch([out.fs_path for out in outs]))
    return f"{_NOWHERE}, and {why}; `dvc exp pull` or `dvc repro` may help"


def _needed(project: Project, stages: Sequence[Stage]) -> tuple[list[Any], list[Any]]:
    """Return the outputs of stages and the data that they read; then other deps that are missing.

    What lies elsewhere, by how the commit names it, is not asked for.
    """
    every, dvc_stages = [*project.repo.index.outs], [dvc_stage(project, s.name) for s in stages]
    unmade = {out.path for stage in stages if not stage.command for out in stage.outs}
    read = [dep for stage in dvc_stages if stage for dep in stage.deps]
    deps = {dep.fs_path: dep for dep in read if "://" not in dep.def_path}

    def is_needed(out: Any) -> bool:
        is_read = not out.stage.cmd and any(overlap(path, out.fs_path) for path in deps)
        return is_read or out.stage in dvc_stages or project.path_of(out) in unmade

    outs = [out for out in every if out.hash_info and out.is_in_repo and is_needed(out)]
    gone = [dep for dep in deps.values() if not dep.exists]
    return outs, [d for d in gone if not any(overlap(d.fs_path, out.fs_path) for out in every)]


def _may_be_fetched(project: Project, out: Any, main: Path) -> bool:
    """Whether DVC keeps an output, and imports it from nowhere that only the commit names."""
    same = main / project.relative(out.stage.path)
    is_known = same.exists() and same.read_bytes() == Path(out.stage.path).read_bytes()
    return out.use_cache and not _odd(out) and (is_known or not out.stage.is_import)


def _odd(out: Any) -> str:
    """Return why nothing of an output is touched: it has no md5, or its list of files leads out.

    Anybody could have written dvc.lock and the list, and DVC deletes what has another md5.
    """
    if not md5_of(out):
        return "dvc.lock has no md5 of it"
    tree = out.get_obj() if out.use_cache and out.hash_info.isdir else None
    files = (("/".join(key), f"{info.value}") for key, _, info in tree or ())
    odd = [name for name, md5 in files if leads_out(name) or not md5.isalnum()]
    return f"its list of files has {odd[0]!r}, which leads out of it" if odd else ""


def _bring(project: Project, out: Any) -> bool:
    """Bring in what DVC's cache and git have of an output; return whether it is all there.

    What is right stays: DVC would remove what its cache lacks, and what somebody has added.
    """
    if _odd(out):
        return False
    wrong = _wrong(project, out)
    # Without a folder's list, DVC would remove what git has of it.
    if wrong and out.use_cache and out.get_obj() is not None:
        # `dvc checkout` itself would need the package of a remote, even if nothing is there.
        with suppress(Exception):  # what is missing is found by its md5
            out.checkout(force=True, allow_missing=True)
        wrong = _wrong(project, out)
        for path in filter(Path.is_file, wrong):
            path.unlink()  # DVC trusts that a write-protected file in its cache is intact
    return not [path for path, md5 in wrong.items() if not _take_from_git(project, out, path, md5)]


def _take_from_git(project: Project, item: Any, path: Path, md5: str) -> bool:
    """Write the version of a file with this md5, if any commit has it; return whether one has.

    What is there can be a link, to DVC's cache or to anywhere.
    """
    content = None
    if not md5.endswith(".dir") and project.is_inside(path.parent):
        content = version_of(project, item, project.relative(f"{path}"), md5)
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    return content is not None


def _wrong(project: Project, out: Any) -> dict[Path, str]:
    """Return the md5s of those files of an output that are not here as in dvc.lock.

    A folder whose files nobody can list stands for them.
    """
    files = _whole(out)
    if md5_of(out).endswith(".dir"):
        if (tree := tree_of(project, out)) is not None:
            listed = (("/".join(key), f"{info.value}") for key, _, info in tree)
            files = {Path(out.fs_path, name): md5 for name, md5 in listed if not leads_out(name)}
        elif not out.use_cache and out.exists:
            # DVC leaves outputs in a folder out of its md5, so that cannot be computed again.
            others = (other.fs_path for other in project.repo.index.outs if other is not out)
            files = {} if any(is_below(out.fs_path, other) for other in others) else files
    return {
        path: md5
        for path, md5 in files.items()
        if not (path.is_file() and file_has_md5(path, md5, out.hash_name))
    }


def _whole(item: Any) -> dict[Path, str]:
    return {Path(item.fs_path): md5_of(item)}
