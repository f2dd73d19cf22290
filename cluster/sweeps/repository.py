"""What a sweep starts from: a commit that nodes can clone, and remotes that they can push to."""

import json
import os
import re
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from sweeps import METRICS
from sweeps.errors import SweepError

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "AWS_")


class Repository:
    """The git repository that the working directory is the root of; raises `SweepError`."""

    def __init__(self, git_remote: str) -> None:
        self.git_remote = git_remote
        self.commit = self._git("rev-parse", "HEAD")
        self.url = self._git("remote", "get-url", git_remote)
        if Path(self.url).exists():
            self.url = str(Path(self.url).resolve())  # nodes have another working directory
        self._namespace = f"refs/exps/{self.commit[:2]}/{self.commit[2:]}/"

    def check(self) -> None:
        """See to it that a node's clone will be what stands here."""
        changed = self._git("status", "--porcelain").splitlines()
        if changed:
            raise SweepError(f"{changed[0][3:]}: not committed, so no node would have it")
        self._git("fetch", "-q", self.git_remote)
        branches = self._git("branch", "-r", "--contains", self.commit).split()
        if not any(name.startswith(f"{self.git_remote}/") for name in branches):
            raise SweepError(
                f"commit {self.commit[:7]} is not in the git remote '{self.git_remote}': "
                "`git push` it first"
            )

    def dvc(self) -> dict[str, Any]:
        """Return DVC's config of its default remote, as a node needs it."""
        with Repo() as repo:
            name = repo.config["core"].get("remote")
            if not name:
                raise SweepError("no DVC remote: `dvc remote add -d NAME URL` first")
            remote = {key: _plain(value) for key, value in repo.config["remote"][name].items()}
        return {"core": {"remote": name}, "remote": {name: remote}}

    def environment(self, shared: bool) -> dict[str, str]:
        """Return what a trial's environment must have: the tracking server, and who commits."""
        address = os.environ.get("MLFLOW_TRACKING_URI", "")
        if shared and not address.startswith(_SHARED):
            raise SweepError(
                "MLFLOW_TRACKING_URI: must name a server or database that every node reaches; "
                f"received '{address}'"
            )
        passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        if not address:
            from bridge.record.store import Store
            from vanilla_lstm.project import COLUMNS, EXPERIMENT

            Store(
                EXPERIMENT, COLUMNS
            )  # makes the experiment if it is not there, with its files in mlartifacts/
            passed["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path.cwd()}/mlflow.db"
        identity = {
            f"GIT_{role}_{key.upper()}": self._git("var", f"GIT_{role}_IDENT")
            for role in ("AUTHOR", "COMMITTER")
            for key in ("name", "email")
        }
        for key, ident in identity.items():
            name, _, rest = ident.partition(" <")
            identity[key] = name if key.endswith("NAME") else rest.partition(">")[0]
        return passed | identity

    def found(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the metrics of those experiments that the git remote has of this commit."""
        listed = self._git("ls-remote", self.git_remote, f"{self._namespace}*").splitlines()
        refs = {ref.removeprefix(self._namespace): sha for sha, ref in map(str.split, listed)}
        refs = {name: sha for name, sha in refs.items() if name in names}
        known = self._git("cat-file", "--batch-check", text="\n".join(refs.values())).splitlines()
        missing = [
            f"{self._namespace}{name}"
            for name, line in zip(refs, known, strict=True)
            if line.endswith(" missing")
        ]
        for i in range(0, len(missing), 500):  # what a command line can hold
            self._git("fetch", "-q", self.git_remote, *missing[i : i + 500])
        # In the answer each file has a line with its name, kind and size before it.
        wanted = "".join(f"{sha}:{METRICS}\n" for sha in refs.values())
        answer = self._git("cat-file", "--batch", text=wanted)
        metrics = [
            json.loads(text) for text in re.split(r"^\w{40,64} blob \d+$", answer, flags=re.M)[1:]
        ]
        return dict(zip(refs, metrics, strict=True))

    def _git(self, *arguments: str, text: str = "") -> str:
        done = subprocess.run(
            ["git", *arguments], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"status {done.returncode}"
            raise SweepError(f"git {arguments[0]}: {said}")
        return done.stdout.rstrip()


def _plain(value: object) -> object:
    """Return a value of DVC's config as it can be sent: a path as text."""
    return value if isinstance(value, (bool, int, float)) else str(value)
