"""Nothing outside the repository is read into a row, or into git's objects."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.hostile import Place
from support.pipelines import Repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

SECRET = "s3cr3t"  # noqa: S105  (of nothing)


def texts(project: Repository) -> str:
    """Return all that the store, its files and git's objects hold."""
    listed = ["git", "cat-file", "--batch-all-objects", "--batch"]
    objects = subprocess.run(listed, cwd=project.path, check=True, capture_output=True).stdout
    files = [p for p in (project.path / "mlartifacts").rglob("*") if p.is_file()]
    files += project.path.glob("mlflow.db*")
    return objects.decode(errors="replace") + "".join(
        file.read_bytes().decode(errors="replace") for file in files
    )


def at_top(**top: Any) -> Callable[[Repository], None]:
    """Declare something at the top of dvc.yaml."""

    def change(project: Repository) -> None:
        declared(project, lambda found: found.update(top))

    return change


def declared(project: Repository, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what dvc.yaml says."""
    file = project.path / "dvc.yaml"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def read(project: Repository) -> None:
    """Declare what is outside, and git's and DVC's own files, by their paths and by links."""
    links = {"p.yaml": "../outside/secret.yaml", "s.json": "../outside/secret.json"}
    links |= {"s.csv": "../outside/secret.csv", "links": "../outside", "git.csv": ".git/config"}
    links |= {"requirements.txt": "../outside/secret.csv"}
    for path, target in links.items():
        (project.path / path).symlink_to(target)
    outside = ["../outside/secret.csv", "../outside", "../../outside"]
    at_top(
        params=["../outside/secret.yaml", "p.yaml"],
        metrics=["new.json", "../outside/secret.json", "s.json", ".dvc/config.local"],
        plots=[*outside, "s.csv", "links", "git.csv", ".git/config", ".dvc/config.local"],
    )(project)


def inserted(project: Repository) -> None:
    """Insert the values of a file outside the repository into a command."""
    command = "echo ${a.key} > d; mkdir -p d; echo '{}' > m.json"
    at_top(vars=["../outside/secret.yaml"])(project)
    declared(project, lambda found: found["stages"]["one"].update(cmd=command))


def item(project: Repository) -> None:
    """Let the keys of a file outside the repository be the items of a foreach."""
    stage = {"foreach": "${a}", "do": {"cmd": "echo ${item}", "metrics": [{"${key}.json": {}}]}}
    at_top(vars=["../outside/secret.yaml"])(project)
    declared(project, lambda found: found["stages"].update(more=stage))


def locked(project: Repository) -> None:
    """Let a small output, and a dvc.lock, be a link to a file outside."""
    yaml, lock = YAML(), project.path / "dvc.lock"
    found = yaml.load(lock)
    text = f"{SECRET}: 1\nschema: '2.0'\nstages:\n  one:\n    cmd: x\n"
    (project.path.parent / "outside/dvc.lock").write_text(text)
    found["stages"]["one"]["params"]["params.yaml"]["rate"] = 5
    yaml.dump(found, lock)
    (project.path / "sub").mkdir()
    (project.path / "sub/dvc.yaml").write_text('{"stages": {"x": {"cmd": "x"}}}')
    (project.path / "sub/dvc.lock").symlink_to("../../outside/dvc.lock")


@pytest.mark.parametrize("change", [read, inserted, item, locked])
def test_not_in_a_row(place: Place, change: Callable[[Repository], None]) -> None:
    """What leads out of the repository, by its path or by a link, is in no row and no object."""
    project, outside = place.project, place.outside
    secret = {"a": {"key": SECRET, SECRET: 1}, SECRET: 0.5}
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
    place.tool("record")
    project.commit("Change")
    place.tool("record", "--all")
    assert SECRET not in texts(project)
    assert project.rows() or change in (inserted, item, locked)
    assert any(row.data.metrics.get("n") == 2 for row in project.rows()) == (change is read)


def test_names_in_git(place: Place) -> None:
    """Names that git's commands could read as several are one, and bring no other file in."""
    project = place.project
    secret = place.outside / "secret"
    secret.write_text(SECRET)
    names = [f"a\n{secret}", 'quote"d', "back\\slash", "t\tab", "-x", ":(top)y", "é"]
    stages = {
        f"s{i}": {
            "cmd": "cp raw.txt out.txt; cp score.json m.json",
            "wdir": name,
            "deps": ["raw.txt", "score.json"],
            "outs": ["out.txt"],
            "metrics": [{"m.json": {"cache": False}}],
        }
        for i, name in enumerate(names)
    }
    for i, name in enumerate(names):
        folder = project.path / name
        folder.mkdir(parents=True)
        (folder / "raw.txt").write_text("1\n")
        (folder / "score.json").write_text(json.dumps({"n": i}))
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.dvc("repro", "-q")
    for words in (["record"], ["record", "--all"]):
        said = place.tool(*words)
        assert said.status == 0, said
        found = {value for row in project.rows() for value in row.data.metrics.values()}
        assert found >= {float(i) for i in range(len(names))}
        project.commit("Names")
    assert SECRET not in texts(project)
    row = next(r for r in project.rows() if "s0/n" in r.data.metrics)
    assert place.tool("restore", row.info.run_id).status == 0
