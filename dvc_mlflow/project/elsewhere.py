"""What another clone of this project would lack, before it runs a stage."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from ..git import names
from .experiments import classified
from .running import Project


def lacking(project: Project) -> Iterator[str]:
    """Yield what a stage reads that another clone could not get, one line each.

    The checkout must be clean. Raises `ProjectError` if the DVC remote cannot say what it has.
    """
    with classified():
        yield from _untracked(project)
        yield from _not_pushed(project._repo)


def _untracked(project: Project) -> Iterator[str]:
    """Yield the deps, in the project, that neither git nor DVC tracks."""
    index, root = project._repo.index, os.fspath(project.root)
    listed = names("ls-files", "-z", "--recurse-submodules", cwd=project.root)
    files = [PurePath(os.path.relpath(project.top / file, root)) for file in listed]
    tracked = {*files, *(folder for file in files for folder in file.parents)}
    deps = {dep.fs_path: dep for stage in index.stages if stage.cmd for dep in stage.deps}
    for path, dep in deps.items():
        parts, own = dep.fs.parts(path), os.path.relpath(path, root)
        if dep.is_in_repo and PurePath(own) not in tracked:
            made = index.outs_trie
            if not (made.shortest_prefix(parts) or made.has_subtrie(parts)):
                yield f"{own}: neither git nor DVC tracks it, so no node would have it"


def _not_pushed(repo: Any) -> Iterator[str]:
    """Yield the inputs in `.dvc` files that their remote lacks."""
    graph, default = repo.index.graph, repo.config["core"].get("remote")
    read = [s for s in graph if not (s.cmd or s.is_import) and graph.in_degree(s)]
    by_remote = defaultdict(list)
    for out in (out for stage in read for out in stage.outs):
        if out.use_cache and out.hash_info:
            by_remote[out.remote or default].append(out)
    for name, outs in by_remote.items():
        remote = repo.cloud.get_remote(name)
        if remote.fs.version_aware or remote.worktree:
            continue  # it has files by name, not by md5
        known = repo.cloud.status({out.hash_info for out in outs}, remote=name)
        if not (known.new or known.missing):
            continue
        for out in outs:
            own = repo.cloud.status({out.hash_info}, remote=name)
            if own.new or own.missing:
                cure = "nor has DVC's cache all of it" if own.missing else "`dvc push` it first"
                path = os.path.relpath(out.fs_path, repo.root_dir)
                yield f"{path}: not in the DVC remote {name!r}: {cure}"
