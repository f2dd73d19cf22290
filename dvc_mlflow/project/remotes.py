"""Fetch files from DVC's remotes into its cache, and say why some are not to be had."""

from collections.abc import Sequence
from typing import Any

from dvc_data.hashfile.hash_info import HashInfo

from ..errors import masked


def fetch(repo: Any, outs: Sequence[Any]) -> str:
    """Fetch outputs from DVC's remote, or from where they are imported; return why not all came."""
    failed: object = None
    name = repo.config["core"].get("remote")
    try:
        repo.fetch([out.fs_path for out in outs])
    except Exception as error:  # whatever a remote's library raises
        failed = error
    failed = (name and _unreachable(repo, name, outs[0])) or failed
    asked = f"nor in the DVC remote {name!r}" if name else "and there is no default DVC remote"
    asked += f" ({_as_line(failed)})" if failed else ""
    return f"it is not in git, not in DVC's cache, {asked}; `dvc exp pull` or `dvc repro` may help"


def fetch_objects(repo: Any, out: Any, oids: Sequence[str]) -> str:
    """Fetch those of an output's objects that DVC's cache lacks; return what has gone wrong."""
    lacking = [HashInfo(out.hash_name, oid) for oid in oids if not out.cache.exists(oid)]
    name = out.remote or repo.config["core"].get("remote")
    if not (lacking and name):
        return "there is no default DVC remote" if lacking else ""
    failed: object = f"the remote {name!r} lacks it"
    try:
        repo.cloud.pull(lacking, remote=name)
    except Exception as error:  # whatever a remote's library raises
        failed = error
    # DVC calls nothing failed if it has found nothing at all.
    if all(out.cache.exists(each.value) for each in lacking):
        return ""
    return _as_line(_unreachable(repo, name, out) or failed)


def _as_line(failed: object) -> str:
    return masked(" ".join(str(failed).split()))[:200] or type(failed).__name__


def _unreachable(repo: Any, name: str, out: Any) -> object:
    """Return why nothing can be read from a remote, if that is so; `out` is what should be there.

    DVC says the same of a file that is not there and of a server that does not answer.
    """
    try:
        remote = repo.cloud.get_remote(name)
        if remote.fs.protocol == "local" and not remote.fs.exists(remote.path):
            return "its folder is not there"
        if not (remote.fs.version_aware or remote.worktree):
            odb = repo.cloud.get_remote_odb(name, hash_name=out.hash_name)
            odb.fs.info(odb.oid_to_path(out.hash_info.value))
    except FileNotFoundError as error:
        return error.__cause__  # of a server that has answered, there is none
    except Exception as error:  # whatever a remote's library raises
        return error
    return None
