"""A model that cannot be served is reported, and its row is complete without it."""

from pathlib import Path
from typing import Any

import pytest

from support.locked import locked
from support.pipelines import makes
from support.row_content import lines, model_ids

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_models_that_cannot_be_served(tmp_path: Path) -> None:
    """Each model that cannot be served costs one line, and its row is complete without it."""
    (tmp_path / "secret.py").write_text("SECRET = 1\n")
    good = {"loader_module": "m", "code_paths": ["m.py"], "pip_requirements": ["six"]}
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "bare": ({"loader_module": "m"}, "pip_requirements: must list the packages"),
        "outside": (
            {**good, "code_paths": ["../secret.py"]},
            "code_paths: must be in",
        ),
        "option": ({**good, "pip_requirements": ["-r /etc/passwd"]}, "without options, or a path"),
        "list": ({**good, "pip_requirements": "/etc/passwd"}, "must be in the repository"),
        "link": ({**good, "code_paths": ["link.py"]}, "code_paths: 'link.py' is not there"),
        "links": ({**good, "code_paths": ["links"]}, "code_paths: 'links' is not there"),
        "listed": ({**good, "pip_requirements": "link.py"}, "'link.py' is not there"),
        "missing": ({**good, "code_paths": ["n.py"]}, "code_paths: 'n.py' is not there"),
        "shape": ({**good, "signature": {"inputs": ["x"]}}, "model shape.txt: "),
        "kind": ({**good, "signature": {"inputs": [{"type": "no"}]}}, "model kind.txt: "),
        "lost": (good, "model lost.txt: its bytes are neither here nor in DVC's cache"),
    }
    stages = {name: makes({f"{name}.txt": name}, outs=[f"{name}.txt"]) for name in wrong}
    artifacts = {
        name: {"path": f"{name}.txt", "type": "model", "meta": model}
        for name, (model, _) in wrong.items()
    }
    stages["broken"] = makes({"broken/MLmodel": "a: ["}, outs=["broken"])
    artifacts["broken"] = {"path": "broken", "type": "model"}
    wrong["broken"] = {}, "model broken: MLmodel: "
    files = {"m.py": "", "links/.keep": "", "broken/MLmodel": "a: ["}
    files |= {f"{name}.txt": name for name in stages if name != "broken"}
    project = locked(tmp_path / "project", stages, {}, files, artifacts=artifacts)
    project.add_store()
    result = project.lock
    (project.path / "dvc.lock").unlink()
    project.commit("Without a result: its code is that of the checkout")
    project.write({"dvc.lock": result})
    (project.path / "link.py").symlink_to(tmp_path / "secret.py")
    (project.path / "links" / "secret.py").symlink_to(tmp_path / "secret.py")
    (project.path / "links" / ".keep").unlink()
    lost = (project.path / "lost.txt").read_bytes()
    for file in [*(project.path / ".dvc" / "cache").rglob("*"), project.path / "lost.txt"]:
        if file.is_file() and file.read_bytes() == lost:
            file.unlink()
    project.choose(*stages)
    said = project.record()
    for name, (_, line) in wrong.items():
        starts = (f"model {name}.txt: ", f"model {name}: ", f"dvc.yaml: artifacts.{name}.")
        found = [each for each in lines(said) if each.startswith(starts)]
        assert len(found) == 1, (name, lines(said))
        assert line in found[0], found
    assert len(lines(said)) == len(wrong)
    rows = project.rows()
    assert [model_ids(row) for row in rows] == [[]] * len(wrong)
    assert all(f"dvc-mlflow.lock.{row.data.tags['dvc.stage']}" in row.data.tags for row in rows)
    assert project.client.search_logged_models([rows[0].info.experiment_id]) == []
