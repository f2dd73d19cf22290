"""Trials that need graphics cards get them from Ray."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from support.projects import Project, stage
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from Ray and MLflow
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]

CARDS = """
import json, os, time
time.sleep(10)
cards = [int(card) for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
json.dump({"n": len(cards), "first": cards[0] if cards else -1}, open("a.json", "w"))
"""


def test_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two trials at once sees a card of its own, and no node without any gets one."""
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # the pipeline hides all cards
    dvc = {"stages": {"a": stage("exec python score.py", "a", "x")}}
    files = {"dvc.yaml": dvc, "score.py": CARDS, "params.yaml": {"x": 0}}
    project = Project(tmp_path, files)
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=4)
        cluster.add_node(num_cpus=2, num_gpus=2)
        with serving(project, "server", "--workers", "1") as server:
            more = ["--metric=a/n", "--address", cluster.address]
            swept = project.sweep("-S", "x=1,2", *more, "--gpus", "1", MLFLOW_TRACKING_URI=server)
            wanted = ["-S", "x=3", *more, "--gpus", "3"]
            refused = project.sweep(*wanted, check=False, MLFLOW_TRACKING_URI=server)
    finally:
        cluster.shutdown()
    assert "2 done, 0 running, 0 failed, 0 left, best 1 " in swept
    assert sorted(row.data.metrics["a/first"] for row in project.rows()) == [0, 1]
    assert refused.splitlines()[-1] == "dvc-mlflow: --gpus: the largest node has 2; received 3"
