"""The bytes of a project: outputs by their md5s, code and texts, in the checkout or a commit."""

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc_data.hashfile.hash import fobj_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from ..errors import masked
from ..git import ask, names
from ..pipeline.stages import Output
from .project import Project

SMALL = 1_000_000
"""The most bytes of an output that is also kept outside DVC's cache."""
_NO_REMOTE = "there is no default DVC remote"
_UNREADABLE = (OSError, ValueError, DvcException)  # a file that is missing, damaged or elsewhere


@dataclass(frozen=True)
class File:
    """A file of an output, as dvc.lock has it."""

    path: str
    """Relative to the project."""
    md5: str
    size: int


def files_of(project: Project, output: Output) -> list[File] | None:
    """Return the files of an output, or None if their list is neither here nor in the cache."""
    if not output.is_folder:
        return [File(output.path, output.md5, output.size)]
    if (tree := tree_of(project, project.outs[output.path])) is None:
        return None
    return [
        File("/".join((output.path, *key)), info.value, (meta and meta.size) or 0)
        for key, meta, info in tree
        if not {"", ".", ".."} & {*key}  # as anybody could write the list
    ]


def is_outside(project: Project, output: Output) -> bool:
    """Whether an output is not in the repository by its path, so that nothing of it is read."""
    is_here = not project.commit and project.is_inside(project.absolute(output.path))
    return not (project.in_git(output.path) or is_here)


def content_of(
    project: Project, output: Output, file: File, *, is_shown: bool = True
) -> bytes | None:
    """Return a file's content from the checkout, git or DVC's cache, if its md5 is there.

    Git is asked for what DVC keeps only if a row shows it, as each path takes 10 to 100 ms.
    """
    out = project.outs[output.path]
    cached = _cached(out, file.md5)
    for read in (partial(project.content, file.path, cached), Path(cached).read_bytes):
        with suppress(*_UNREADABLE):
            content = read()
            if file.md5 in md5s(content, out.hash_name):
                return content
    is_asked = project.commit and (is_shown or not out.use_cache)  # another commit can have it
    return version_of(project, out, file.path, file.md5) if is_asked else None


def fetch_files(project: Project, output: Output, is_wanted: Callable[[File], bool]) -> str:
    """Fetch the wanted files of an output that are not in DVC's cache; say what failed."""
    out = project.outs[output.path]
    if not (out.use_cache and out.hash_info):
        return ""
    if output.is_folder and tree_of(project, out) is None:
        _fetch(project, out, [output.md5])
    wanted = [file.md5 for file in files_of(project, output) or () if is_wanted(file)]
    why = _fetch(project, out, wanted)
    return f"{output.path} cannot be fetched: {why}" if why else ""


def _fetch(project: Project, out: Any, oids: Sequence[str]) -> str:
    """Fetch those of an output's objects that DVC's cache lacks; return why not all came."""
    lacking = [HashInfo(out.hash_name, oid) for oid in oids if not out.cache.exists(oid)]
    if not lacking:
        return ""
    name = out.remote or project.remote
    why = why_not_fetched(name, lambda: name and project.repo.cloud.pull(lacking, remote=name))
    # DVC calls nothing failed if it has found nothing at all.
    return "" if all(out.cache.exists(each.value) for each in lacking) else why


def why_not_fetched(remote: str, fetch: Callable[[], object]) -> str:
    """Call DVC to fetch files; return why those that are still missing have not come.

    DVC does the same if a file is not there and if a server does not answer, so no remote is said
    to lack a file.
    """
    why = f"it did not come from the DVC remote {remote!r}" if remote else _NO_REMOTE
    try:
        fetch()
    except Exception as error:  # whatever a remote's library raises
        return f"{why} ({masked(' '.join(f'{error}'.split()))[:200] or type(error).__name__})"
    return why


def cure_of(project: Project, output: Output) -> str:
    """Return what brings back the files of an output that are neither here nor in the cache."""
    if not project.commit:
        return "`git checkout`, `dvc pull` or `dvc repro` brings them back"
    return "`--fetch` looks in DVC's remote" if output.cached else "no commit has them"


def contents_of(project: Project, output: Output) -> list[tuple[str, Path | bytes]] | None:
    """Return an output's files by their paths in it, or None if one is missing.

    For a file in DVC's cache that is where it is: a model can have a few GB. A file that is an
    output itself has the path "".
    """
    out, files = project.outs[output.path], files_of(project, output)
    contents: list[tuple[str, Path | bytes]] = []
    for file in files or ():
        cached = Path(_cached(out, file.md5)).resolve()
        is_there = cached.is_file() and file_has_md5(cached, file.md5, out.hash_name)
        content = cached if is_there else content_of(project, output, file)
        if content is None:
            return None
        contents.append((file.path[len(output.path) + 1 :], content))
    return None if files is None else contents


def code_below(project: Project, path: str) -> dict[str, bytes]:
    """Return the files below a folder, or a file, of the checkout or the commit.

    Files of a folder that git or DVC ignores and links that lead elsewhere are left out.
    """
    ignores = project.repo.dvcignore.is_ignored_file
    if not ignores(project.absolute(path)):
        with suppress(OSError):
            return {path: project.content(path)}
    contents, start = dict[str, bytes](), project.in_git(path)
    # A history asks for thousands of folders that only DVC has, and a list is a process of git.
    if start and (not project.commit or project.blobs.has(f"{project.commit}:./{start}")):
        listed = ["ls-files", "-co", "--exclude-standard"]
        if project.commit:
            listed = ["ls-tree", "-r", "--name-only", "--full-tree", project.commit]
        for name in names(*listed, "-z", "--", f":(literal){start}", cwd=project.top):
            file = posixpath.relpath(name, project.folder or ".")
            if not (ignores(project.absolute(file)) or "__pycache__" in file.split("/")):
                with suppress(OSError):
                    contents[file] = project.content(file)
    return contents


def cache_stamp(project: Project) -> str:
    """Return what changes when DVC's cache gets a file."""
    path = Path(project.repo.cache.local.path)
    folders = [entry.stat() for entry in path.glob("*")]
    return f"{len(folders)} {max((each.st_mtime_ns for each in folders), default=0)}"


def tree_of(project: Project, out: Any) -> Any:
    """Return the list of a folder's files as in dvc.lock, or None if it is nowhere.

    It is looked for in DVC's cache, in the checkout or the commit, and in git.
    """
    if out.use_cache and (tree := out.get_obj()) is not None:
        return tree
    if not project.commit:
        if not project.is_inside(out.fs_path):
            return None
        where = (out.local_cache, out.fs_path, out.fs, out.hash_name)
        how = {"ignore": out.dvcignore, "dry_run": True, "no_progress_bar": True}
        with suppress(*_UNREADABLE):
            if (tree := out._build(*where, **how)[2]).hash_info == out.hash_info:
                return tree
        if out.use_cache:
            return None
    folder = project.path_of(out)
    files = {posixpath.relpath(p, folder): body for p, body in code_below(project, folder).items()}
    return _listed(files, out.hash_info.value, out.hash_name)


def _cached(out: Any, md5: str) -> str:
    """Return where DVC's cache has a file of an output, or "" if it keeps none of it."""
    return str(out.local_cache.oid_to_path(md5)) if out.is_in_repo else ""


def is_other(project: Project, commit: str, output: Output) -> bool:
    """Whether a commit, or the checkout, has a file, but not as in dvc.lock."""
    content = None
    if not output.is_folder:
        with suppress(OSError):
            path = output.path
            content = project.committed(commit, path) if commit else project.content(path)
    return content is not None and output.md5 not in md5s(content, "md5")


def version_of(project: Project, out: Any, path: str, md5: str) -> bytes | None:
    """Return the version of a file with the right md5, if any commit has it."""
    name, key = project.in_git(path), (path, out.hash_name)
    if not name:
        return None
    if key not in project.versions:
        options = ("--all", "--format=", "--raw", "--no-abbrev", "--no-renames")
        # Without all trees, as in some partial clones, git does not know.
        log = ask("log", *options, "--", f":(top,literal){name}", cwd=project.top)
        blobs = {line.split()[3] for line in log.splitlines() if line.startswith(":")}
        contents = {blob: project.blobs.read(blob) for blob in sorted(blobs)}
        project.versions[key] = {
            oid: blob
            for blob, content in contents.items()
            if content is not None
            for oid in md5s(content, out.hash_name)
        }
    blob = project.versions[key].get(md5)
    return project.blobs.read(blob) if blob else None


def content_md5(content: bytes, name: str = "md5") -> str:
    """Return the md5 of a content by the algorithm that DVC calls `name`."""
    return str(fobj_md5(io.BytesIO(content), name=name))


def md5s(content: bytes, name: str) -> Iterator[str]:
    """Yield the md5 of a content, and those that a text has with other ends of lines.

    Git may have changed them since, and `end-of-file-fixer` of pre-commit ends the last line.
    """
    yield content_md5(content, name)
    if b"\0" in content[:8000]:  # as git decides it
        return
    for text in (content, content.removesuffix(b"\n").removesuffix(b"\r")):
        unix = _as_unix(text)
        yield from (content_md5(each, name) for each in (unix, unix.replace(b"\n", b"\r\n")))


def _as_unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")


def file_has_md5(file: Path, wanted: str, name: str) -> bool:
    """Whether a file has an md5, as it is or with other ends of lines; raises `OSError`."""
    with file.open("rb") as opened:
        if str(fobj_md5(opened, name=name)) == wanted:
            return True
    return file.stat().st_size <= 50 * SMALL and wanted in md5s(file.read_bytes(), name)


def _listed(files: Mapping[str, bytes], wanted: str, name: str) -> Any:
    """Return DVC's list of a folder's files if its md5 is the wanted one, else None."""
    for way in (lambda c: c, _as_unix, lambda c: _as_unix(c).replace(b"\n", b"\r\n")):
        entries = [{"relpath": path, "md5": content_md5(way(c), name)} for path, c in files.items()]
        tree = Tree.from_list(entries, hash_name=name)
        tree.digest()
        if tree.hash_info.value == wanted:
            return tree
    return None


def md5_of(item: Any) -> str:
    """Return the md5 of an output or a dependency in dvc.lock, or "" if it has none.

    A path, which anybody can have written there, is none.
    """
    value = item.hash_info.value if item.hash_info else None
    return value if isinstance(value, str) and not {"/", "\\", "\n"} & {*value} else ""
