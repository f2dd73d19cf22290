"""Small projects for `dvc-mlflow init`, and what it changes in them."""

import io
from collections.abc import Mapping
from typing import Any

from dvc_mlflow.project import parse
from pipelines import Repository

MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back\n"


def changed_lines(project: Repository, *paths: str) -> list[str]:
    """Return the lines of these files that differ from the last commit."""
    diff = project.git("diff", "-U0", "--", *paths).splitlines()
    return [line for line in diff if line[:1] == "+" and line[:3] != "+++"]


def one(stage: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a stage with a metric and these other entries."""
    return {"metrics": [{"score.json": {"cache": False}}], **stage, **more}


SCORE = "echo 1 > score.json"
PREFIXED = f"dvc-mlflow run -c '{SCORE}'"


def command(project: Repository, stage: str = "train", folder: str = ".") -> Any:
    """Return a stage's command in dvc.yaml."""
    text = (project.path / folder / "dvc.yaml").read_text()
    return parse(text, "dvc.yaml")["stages"][stage]["cmd"]


class Terminal(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True
