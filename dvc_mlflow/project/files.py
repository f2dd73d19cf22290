"""The bytes of a project: outputs by their md5s, code and texts, in the checkout or a commit."""

import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem

from .. import work_tree
from ..git import ask, tree
from ..pipeline.stages import Output, leads_out
from .dvc_repo import DvcRepo
from .hashing import content_md5, file_has_md5, listed, md5s
from .remotes import fetch_objects

SMALL = 1_000_000
"""The most bytes of an output that is also kept outside DVC's cache."""
_UNREADABLE = (OSError, ValueError, DvcException)  # a file that is missing, damaged or elsewhere


@dataclass(frozen=True)
class File:
    """A file of an output, as dvc.lock has it."""

    path: str
    """Relative to the project."""
    md5: str
    size: int


class Files(DvcRepo):
    """A project's files."""

    def files(self, output: Output) -> list[File] | None:
        """Return the files of an output, or None if their list is neither here nor in the cache."""
        out = self._outs[output.path]
        if not output.is_folder:
            return [File(output.path, output.md5, output.size)]
        tree = self._tree(out)
        if tree is None:
            return None
        return [
            File("/".join((output.path, *key)), info.value, (meta and meta.size) or 0)
            for key, meta, info in tree
            if not {"", ".", ".."} & {*key}  # as anybody could write the list
        ]

    def is_outside(self, output: Output) -> bool:
        """Whether an output is not in the repository by its path, so that nothing of it is read."""
        is_here = not self._commit and self.is_inside(self._absolute(output.path))
        return not (self._in_git(output.path) or is_here)

    def read(self, output: Output, file: File, *, is_shown: bool = True) -> bytes | None:
        """Return a file's content from the checkout, git or DVC's cache, if its md5 is there.

        Git is asked for what DVC keeps only if a row shows it, as each path takes 10 to 100 ms.
        """
        out = self._outs[output.path]
        for content in self._contents(out, file, is_shown=is_shown):
            if file.md5 in md5s(content, out.hash_name):
                return content
        return None

    def fetch(self, output: Output, is_wanted: Callable[[File], bool]) -> list[str]:
        """Fetch those files of an output that are wanted and DVC's cache lacks.

        Returns what is wrong, one line at most.
        """
        out = self._outs[output.path]
        if not (out.use_cache and out.hash_info):
            return []
        why = ""
        if output.is_folder and self._tree(out) is None:
            why = fetch_objects(self._repo, out, [output.md5])
        wanted = [file.md5 for file in self.files(output) or () if is_wanted(file)]
        why = why or fetch_objects(self._repo, out, wanted)
        return [f"{output.path} cannot be fetched: {why}"] if why else []

    def cure(self, output: Output, *, was_fetched: bool) -> str:
        """Return what brings back the files of an output that are neither here nor in the cache."""
        if not self._commit:
            how = "dvc checkout, dvc pull or git checkout, or make them again with dvc repro"
            return f"bring them back with {how}, and record again"
        if not output.cached:
            return "no commit has them"
        if not (self._outs[output.path].remote or self._repo.config["core"].get("remote")):
            return "they are not in DVC's cache, and there is no default DVC remote"
        if was_fetched:
            return "they are not in DVC's cache, and could not be fetched"
        return "with --fetch they come from DVC's remote"

    def contents(self, output: Output) -> list[tuple[str, Path | bytes]] | None:
        """Return an output's files by their paths in it, or None if one is missing.

        For a file that is here that is where it is: a model can have a few GB. A file that is an
        output itself has the path "".
        """
        out, files = self._outs[output.path], self.files(output)
        found: list[tuple[str, Path | bytes]] = []
        for file in files or ():
            path = file.path[len(output.path) + 1 :]
            place = next((p for p in self._here(out, file) if _has(p, out, file)), None)
            content = place.resolve() if place else self.read(output, file)
            if content is None:
                return None
            found.append((path, content))
        return None if files is None else found

    def code(self, path: str) -> dict[str, bytes]:
        """Return the files below a folder, or a file, of the checkout or the commit.

        Files that git or DVC ignores and links that lead elsewhere are left out.
        """
        if self._commit:
            return self._committed_code(path)
        fs, start = self._repo.fs, self._absolute(path)
        if fs.isfile(start):
            files = [start]
        else:
            files = []
            for folder, folders, names in self._repo.dvcignore.walk(fs, start):
                folders[:] = [n for n in folders if not self._is_ignored(f"{fs.join(folder, n)}/")]
                own = (fs.join(folder, name) for name in sorted(names))
                files += [file for file in own if not self._is_ignored(file)]
        found = {}
        for file in files:
            with suppress(work_tree.RefusedError):
                found[self._relative(file)] = work_tree.read(file, self.top)
        return found

    def _committed_code(self, path: str) -> dict[str, bytes]:
        start = posixpath.normpath(posixpath.join(self.folder, path))
        is_inside = start != "." and not leads_out(start)
        # A history asks for thousands of folders that only DVC has, and `git ls-tree` is a process.
        if is_inside and not self.blobs.has(f"{self._commit}:{start}"):
            return {}
        found = {}
        for file, mode, blob in tree(self.top, self._commit, start):
            name = posixpath.relpath(file, self.folder or ".")
            ignored = self._repo.dvcignore.is_ignored_file(self._absolute(name))
            is_cache = "__pycache__" in name.split("/")
            content = None if ignored or is_cache else self.blobs.read(blob)
            if mode.startswith("100") and content is not None:
                found[name] = content
        return found

    def _is_ignored(self, path: str) -> bool:
        """Whether a path of the checkout is Python's cache, or ignored by git."""
        is_cache = posixpath.basename(path.rstrip("/")) == "__pycache__"
        return is_cache or bool(self._repo.scm.is_ignored(path))

    def md5(self, path: str) -> str:
        """Return the md5 of a file of the checkout or the commit, or "" if there is none."""
        try:
            return content_md5(self._content(path))
        except _UNREADABLE:
            return ""

    def differs(self, commit: str, output: Output) -> bool:
        """Whether git has a file in a commit, but not as in dvc.lock."""
        content = None if output.is_folder else self.committed(commit, output.path)
        return content is not None and output.md5 not in md5s(content, "md5")

    def text(self, path: str) -> str | None:
        """Return the text of a file of the checkout or the commit, if there is one."""
        try:
            return self._content(path).decode()
        except _UNREADABLE:
            return None

    def _output(self, out: Any) -> Output:
        size = (out.meta and out.meta.size) or 0
        return Output(
            self._path(out),
            md5_of(out),
            size,
            bool(out.use_cache),
            bool(out.metric),
        )

    def address(self, oid: str) -> tuple[str, str]:
        """Return where the bytes with this md5 are: kind and address of a data set's source.

        They are in DVC's default remote, or in its cache if MLflow cannot read the remote: it reads
        only some kinds, none that keeps versions of files, and none with a user in its address.
        """
        config = self._repo.config
        remote = config["remote"].get(config["core"].get("remote"), {})
        start = str(remote.get("url", ""))
        kind = start.partition("://")[0] if "://" in start else "local"
        known = kind in ("local", "s3", "gs", "hdfs", "http", "https")
        has_secret = kind != "local" and bool({"@", "?", "#"} & {*start})
        if not start or not known or has_secret or {"version_aware", "worktree"} & remote.keys():
            start, kind = str(self._repo.cache.local.path), "local"
            start = start.removesuffix("/files/md5")
        kind = "http" if kind.startswith("http") else kind
        return kind, f"{start.rstrip('/')}/files/md5/{oid[:2]}/{oid[2:]}"

    def _tree(self, out: Any) -> Any:
        """Return the list of a folder's files as in dvc.lock, or None if it is nowhere.

        It is looked for in DVC's cache, in the checkout or the commit, and in git.
        """
        if out.use_cache and (tree := out.get_obj()) is not None:
            return tree
        if self._commit:
            return self._listed(out)
        if not self.is_inside(out.fs_path):
            return None
        odb = out.cache if out.use_cache else out.local_cache
        options = {"ignore": out.dvcignore, "dry_run": True, "no_progress_bar": True}
        try:
            _, _, tree = out._build(odb, out.fs_path, out.fs, out.hash_name, **options)
        except _UNREADABLE:
            return None
        if tree.hash_info == out.hash_info:
            return tree
        return None if out.use_cache else self._listed(out)

    def _listed(self, out: Any) -> Any:
        """Return the list of a folder that git has, if that is dvc.lock's, line endings aside."""
        folder = self._path(out)
        files = {posixpath.relpath(p, folder): body for p, body in self.code(folder).items()}
        return listed(files, out.hash_info.value, out.hash_name)

    def _contents(self, out: Any, file: File, *, is_shown: bool) -> Iterator[bytes]:
        """Yield what may be the content of an output's file."""
        cache = out.cache if out.use_cache else out.local_cache
        with suppress(*_UNREADABLE):
            yield self._content(file.path, cached=self._cached(out, file))
        if out.is_in_repo:
            with suppress(*_UNREADABLE):
                yield cache.fs.cat_file(cache.oid_to_path(file.md5))
        is_asked = self._commit and (is_shown or not out.use_cache)  # another commit can have it
        if is_asked and (content := self.version(out, file)) is not None:
            yield content

    def version(self, out: Any, file: File) -> bytes | None:
        """Return the version of a file with the right md5, if any commit has it."""
        path, name = file.path, self._in_git(file.path)
        if not name:
            return None
        key = path, out.hash_name
        if key not in self._known_versions:
            options = ("--all", "--format=", "--raw", "--no-abbrev", "--no-renames")
            # Without all trees, as in some partial clones, git does not know.
            log = ask("log", *options, "--", f":(top,literal){name}", cwd=self.top)
            blobs = {line.split()[3] for line in log.splitlines() if line.startswith(":")}
            found = {blob: self.blobs.read(blob) for blob in sorted(blobs)}
            self._known_versions[key] = {
                oid: blob
                for blob, content in found.items()
                if content is not None
                for oid in md5s(content, out.hash_name)
            }
        blob = self._known_versions[key].get(file.md5)
        return self.blobs.read(blob) if blob else None

    def _here(self, out: Any, file: File) -> Iterator[Path]:
        """Yield the local files that may have the content of an output's file."""
        here, cached = self._absolute(file.path), self._cached(out, file)
        if cached:
            yield Path(cached)
        with suppress(OSError), work_tree.opened(here, self.top, cached=cached):
            yield Path(here)

    def _cached(self, out: Any, file: File) -> str:
        """Return where DVC's cache on this machine has the content of an output's file, or ""."""
        cache = out.cache if out.use_cache else out.local_cache
        is_local = out.is_in_repo and isinstance(cache.fs, LocalFileSystem)
        return str(cache.oid_to_path(file.md5)) if is_local else ""


def md5_of(item: Any) -> str:
    """Return the md5 of an output or a dependency in dvc.lock, or "" if it has none.

    A path, which anybody can have written there, is none.
    """
    value = item.hash_info.value if item.hash_info else None
    return value if isinstance(value, str) and not {"/", "\\", "\n"} & {*value} else ""


def _has(path: Path, out: Any, file: File) -> bool:
    """Whether a local file has the content of an output's file."""
    try:
        return file_has_md5(path, file.md5, out.hash_name)
    except OSError:
        return False
