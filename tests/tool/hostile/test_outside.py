"""Nothing outside the repository is read into a row, or into git's objects."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.hostile import Place
from support.locked import locked
from support.pipelines import Repository
from support.refusals import SECRET

pytestmark = pytest.mark.pipeline


def texts(project: Repository) -> str:
    """Return all that the store, its files and git's objects hold."""
    listed = ["git", "cat-file", "--batch-all-objects", "--batch"]
    objects = subprocess.run(listed, cwd=project.path, check=True, capture_output=True).stdout
    files = [p for p in (project.path / "mlartifacts").rglob("*") if p.is_file()]
    files += project.path.glob("mlflow.db*")
    return objects.decode(errors="replace") + "".join(
        file.read_bytes().decode(errors="replace") for file in files
    )


def declare(project: Repository, stages: Mapping[str, Any] = {}, **top: Any) -> None:
    """Let dvc.yaml have this of stages, too, and this at its top."""
    file = project.path / "dvc.yaml"
    found = json.loads(file.read_text()) | top
    for name, stage in stages.items():
        found["stages"].setdefault(name, {}).update(stage)
    file.write_text(json.dumps(found))


def read(project: Repository) -> None:
    """Declare what is outside, and git's and DVC's own files, by their paths and by links."""
    links = {"p.yaml": "../outside/secret.yaml", "s.json": "../outside/secret.json"}
    links |= {"s.csv": "../outside/secret.csv", "links": "../outside", "git.csv": ".git/config"}
    links |= {"requirements.txt": "../outside/secret.csv"}
    for path, target in links.items():
        (project.path / path).symlink_to(target)
    outside = ["../outside/secret.csv", "../outside", "../../outside"]
    declare(
        project,
        params=["../outside/secret.yaml", "p.yaml"],
        metrics=["new.json", "../outside/secret.json", "s.json", ".dvc/config.local"],
        plots=[*outside, "s.csv", "links", "git.csv", ".git/config", ".dvc/config.local"],
    )


def inserted(project: Repository) -> None:
    """Insert the values of a file outside the repository into a command, and as items."""
    command = "echo ${of.key} > d; mkdir -p d; echo '{}' > m.json"
    more = {"foreach": "${of}", "do": {"cmd": "echo ${item}", "metrics": [{"${key}.json": {}}]}}
    declare(project, {"one": {"cmd": command}, "more": more}, vars=["../outside/secret.yaml"])


@pytest.mark.parametrize("change", [read, inserted])
def test_not_in_a_row(place: Place, change: Callable[[Repository], None]) -> None:
    """What leads out of the repository, by its path or by a link, is in no row and no object."""
    project, outside = place.project, place.outside
    secret = {"of": {"key": SECRET, SECRET: 1}, SECRET: 0.5}
    for name in ("secret.yaml", "secret.json"):
        (outside / name).write_text(json.dumps(secret))
    (outside / "secret.csv").write_text(f"step,{SECRET}\n1,2\n2,3\n")
    project.git("config", "http.extraHeader", f"Authorization: {SECRET}")
    remote = f"['remote \"x\"']\n    url = https://example.org\n    password = {SECRET}\n"
    (project.path / ".dvc/config.local").write_text(remote)
    project.write({"new.json": '{"n": 2}'})
    project.remove_store()
    project.add_store()
    change(project)
    line = "dvc.yaml: ../outside/secret.yaml is outside the repository, so it is not read"
    assert (line in place.tool("record").error) == (change is inserted)
    project.commit("Change")
    place.tool("record", "--all")
    assert SECRET not in texts(project)
    assert any(row.data.metrics.get("n") == 2 for row in project.rows()) == (change is read)


def test_names_in_git(tmp_path: Path) -> None:
    """Names that git's commands could read as several are one, and bring no other file in."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    names = [f"a\n{secret}", 'quote"d', "back\\slash", "t\tab", "-x", ":(top)y", "é"]
    files: dict[str, str] = {}
    stages = {
        f"s{i}": {
            "cmd": "x",
            "wdir": name,
            "deps": ["raw.txt"],
            "outs": ["out.txt"],
            "metrics": [{"m.json": {"cache": False}}],
        }
        for i, name in enumerate(names)
    }
    for i, name in enumerate(names):
        own = {"raw.txt": "1\n", "out.txt": "1\n", "m.json": json.dumps({"n": i})}
        files |= {f"{name}/{path}": text for path, text in own.items()}
    project = locked(tmp_path / "project", stages, files=files)
    project.add_store()
    for words in (["record"], ["record", "--all"]):
        said = project.tool(*words)
        assert said.status == 0, said
        found = {value for row in project.rows() for value in row.data.metrics.values()}
        assert found >= {float(i) for i in range(len(names))}
        project.commit("Names")
    assert SECRET not in texts(project)
    row = next(r for r in project.rows() if "s0/n" in r.data.metrics)
    assert project.tool("restore", row.info.run_id).status == 0
