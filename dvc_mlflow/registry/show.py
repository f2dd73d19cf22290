"""Show in MLflow what git's tags register: GTO's versions, and its stages as aliases.

It only adds. A version or an alias that MLflow lacks is made, and an alias follows git as long as
it is where the tool has put it. Where MLflow says otherwise, that stays, and is named.
"""

import posixpath
from collections import defaultdict
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from ..errors import ModelError, ProjectError
from ..git import ask
from ..pipeline.tags import GTO_COMMIT, GTO_STAGE, GTO_TAG, ROW, tagged
from ..project.definitions import read_pipeline
from ..project.project import Project
from ..store.models import is_alias, mlflow_name
from ..store.store import Store, exists
from .committed_models import logged, models_at, row_with_model

if TYPE_CHECKING:
    from ..project.gto_tags import Artifact, Version


def show(project: Project, root: Path, *, dry: bool = False) -> tuple[list[str], list[str]]:
    """Show the registry of a project; `dry` writes nothing.

    Return what has changed in MLflow, and what could not, one line each. Raises `ToolError`.
    """
    if not ({"@", "#"} & {*ask("tag", cwd=project.top)} and exists(root)):  # GTO's have one of them
        return [], []
    view = _View(project, Store.existing(root, folder=project.folder), dry=dry)
    with view.store.lock(), view.store.errors_reported():
        view.show_all()
    done = [f"would be so: {line}" if dry else line for line in view.done]
    notes = [
        f"{', '.join(tags[:4])}{', …' if tags[4:] else ''}: {why}"
        for why, tags in view.lacking.items()
    ]
    return done, notes


class _View:
    """What MLflow shows of the artifacts of a project."""

    def __init__(self, project: Project, store: Store, *, dry: bool) -> None:
        self.store, self._project, self._dry = store, project, dry
        self.done: list[str] = []
        # Git's tags that could not be shown, by the reason.
        self.lacking: dict[str, list[str]] = defaultdict(list)

    def show_all(self) -> None:
        """Let MLflow show the artifacts in the project's folder as git's tags say."""
        from ..project import gto_tags  # GTO takes a third of a second

        start = posixpath.join(self._project.folder, "")
        for artifact, said in gto_tags.read_artifacts(self._project.top).items():
            if said.problem:
                self.lacking[said.problem].append(artifact)
            elif posixpath.join(artifact.rpartition(":")[0], "").startswith(start):
                self._show(artifact, said)

    def _show(self, artifact: str, said: "Artifact") -> None:
        name = mlflow_name(artifact)
        there = self.store.client.search_model_versions(f"name = '{name}'")
        commits = {f"{version.version}": version.tags.get(GTO_COMMIT, "") for version in there}
        for version in said.versions:
            if version.commit not in commits.values():
                try:
                    commits[self._added(name, artifact, version)] = version.commit
                except (ModelError, ProjectError) as error:
                    self.lacking[f"{error}"].append(version.tag)
        self._show_stages(name, said, commits)

    def _added(self, name: str, artifact: str, version: "Version") -> str:
        """Add a version, and return its number; "" if it is none of a model, such as a data set's.

        Raises `ModelError` or `ProjectError`.
        """
        every = models_at(self._project, version.commit)
        if not (models := [each for each in every if each.model.name == artifact]):
            if any(model.name == artifact for model in read_pipeline(self._project).models):
                raise ModelError("dvc.lock at its commit has no result of the model")
            return ""
        if (row := row_with_model(self.store, models[0])) is None:
            raise ModelError("MLflow has no row of its result; `dvc-mlflow record --all` adds it")
        model_id = logged(self._project, self.store, row, models[0], dry=self._dry)
        self.done.append(f"models:/{name}: {version.name} is registered")
        if self._dry:
            return version.name
        tags = {ROW: row.info.run_id, GTO_COMMIT: version.commit, GTO_TAG: version.tag}
        with redirect_stderr(StringIO()):  # MLflow reports each step
            made = mlflow.register_model(f"models:/{model_id}", name, tags=tags)
        self.store.client.update_model_version(name, made.version, version.message[:5000])
        return f"{made.version}"

    def _show_stages(self, name: str, said: "Artifact", commits: dict[str, str]) -> None:
        """Let each alias be where git's tags say, given the commits of versions by number."""
        client = self.store.client
        model = next(iter(client.search_registered_models(f"name = '{name}'")), None)
        aliases, marks = (model.aliases, tagged(model.tags, GTO_STAGE)) if model else ({}, {})
        for stage in sorted({*said.stages, *(marks.keys() & aliases.keys())}):
            at, mark = f"{aliases.get(stage, '')}", marks.get(stage, "")
            version, tag = said.stages.get(stage, (None, mark))
            targets = (n for n, commit in commits.items() if version and commit == version.commit)
            if at == (target := next(targets, "")):
                continue
            of_mark = ("rev-parse", "-q", "--verify", f"refs/tags/{mark}^{{commit}}")
            is_own = mark and commits.get(at) == ask(*of_mark, cwd=self._project.top)
            if not is_alias(stage):
                self.lacking[f"MLflow allows no alias {stage!r}"].append(tag)
            elif version and target and (is_own or not at):
                self.done.append(f"models:/{name}@{stage} is {version.name}")
                if not self._dry:
                    client.set_registered_model_alias(name, stage, target)
                    client.set_registered_model_tag(name, f"{GTO_STAGE}{stage}", tag)
            else:
                says = f"git says {version.name}" if version else "git assigns it no longer"
                self.lacking[f"models:/{name}@{stage} is version {at} in MLflow; {says}"].append(
                    tag
                )
