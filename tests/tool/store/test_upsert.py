"""A row is a value, and one function brings it to MLflow: what is there already is left alone."""

from pathlib import Path

import pytest
from mlflow.entities import Metric, Run, ViewType

from dvc_mlflow.pipeline import tags
from dvc_mlflow.pipeline.row import NOWHERE, Part, Point, Row, RowKey, Standing, StoredRun, Wanted
from dvc_mlflow.processes import process_tags
from dvc_mlflow.store.runs import find_run
from dvc_mlflow.store.store import Store
from dvc_mlflow.store.upsert import Begun, Written, upsert
from support.clone import Clone

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
]

TRAIN, SCORE = "a" * 32, "b" * 32
CURVE = [Point("train/loss", 1 / step, step) for step in (1, 2, 3)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The own store of an empty repository."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    Clone(tmp_path).git("init", "-q")
    Clone(tmp_path).add_store()
    return Store.open(tmp_path)


def row(
    digests: dict[str, str] | None = None,
    points: list[Point] = CURVE,
    declared: str = "one",
    at: Standing = NOWHERE,
) -> Row:
    """Return a row of a training, or of a training and its evaluation."""
    results = {RowKey(name): digest for name, digest in (digests or {"train": TRAIN}).items()}
    parts = {name: Part() for name in results}
    parts[RowKey("train")] = Part(points=[*points])
    return Row(
        wanted=Wanted(results, at, declared),
        words="rate=2",
        digits=[digest[:7] for digest in reversed(results.values())],
        note=f"**{at.commit[:7]}**",
        time=1_000,
        tags={f"{tags.LOCK}{name}": digest for name, digest in results.items()}
        | {f"{tags.MD5}model.txt": "1" * 32},
        origin={tags.CHANGE: at.commit[:7], tags.USER: "me"},
        params={"rate": "2"},
        parts=parts,
        measures=["-train/loss"],
        notes=[],
    )


def bring(store: Store, given: Row, begun: Begun | None = None) -> Written:
    """Bring a row to the store."""
    return upsert(store, given, find_run(store, given.wanted.digests), begun)


def stored(store: Store, given: Row) -> StoredRun:
    """Return the run that has a row's results."""
    has = find_run(store, given.wanted.digests).has
    assert has is not None
    return has


def only(store: Store) -> Run:
    """Return the only run."""
    (run,) = store.client.search_runs([store.experiment_id], "", ViewType.ACTIVE_ONLY)
    return run


def n_points(store: Store) -> int:
    """Return how many points the only run has, where one that is there twice counts twice."""
    run = only(store)
    return sum(
        len(store.client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics
    )


def test_new(store: Store) -> None:
    """A new row has all of it at once, and then it lacks nothing.

    What is declared later is added; what an earlier commit declared stays.
    """
    given = row(at=Standing(2, 1, "c" * 40))
    assert bring(store, given).verb == "added"
    run = only(store)
    assert (run.info.run_name, run.info.status) == ("aaaaaaa rate=2", "FINISHED")
    assert run.data.params == {"rate": "2"}
    assert n_points(store) == len(CURVE)
    assert not stored(store, given).lacks(given.wanted)
    before = (store.root / "mlflow.db").read_bytes()
    assert bring(store, given).verb == ""
    assert (store.root / "mlflow.db").read_bytes() == before
    more = row(points=[*CURVE[1:], Point("train/acc", 0.5, 0)], declared="two")
    assert stored(store, more).lacks_content(more.wanted)
    assert bring(store, more).verb == "completed"
    assert n_points(store) == len(CURVE) + 1
    assert not stored(store, more).lacks(more.wanted)


def test_joined(store: Store) -> None:
    """A further result joins the row whose results are all among its own, and may rename it."""
    bring(store, row())
    both = row({"train": TRAIN, "score": SCORE})
    both.parts[RowKey("score")].points.append(Point("score/acc", 0.5, 0, is_final=True))
    done = bring(store, both)
    assert (done.verb, done.stages) == ("completed", ["score"])
    run = only(store)
    assert run.info.run_name == "bbbbbbb rate=2"
    assert n_points(store) == len(CURVE) + 1
    assert run.data.tags[tags.FOUND_BY].split() == ["aaaaaaa", "bbbbbbb"]


def test_standing(store: Store) -> None:
    """The commit becomes an older one of a higher rank, never the other way."""
    ways = [NOWHERE, Standing(1, 5, "e" * 40), Standing(2, 9, "d" * 40), Standing(2, 3, "c" * 40)]
    for at in ways:
        bring(store, row(at=at))
        assert only(store).data.tags.get(tags.CHANGE, "") == at.commit[:7]
    for at in ways:  # clones that know other commits come to rest
        assert not stored(store, row()).lacks(row(at=at).wanted)
    assert only(store).data.tags[tags.NOTE] == "**ccccccc**"


def test_what_people_wrote(store: Store) -> None:
    """A name and a description that a person gave stay, whatever comes later."""
    bring(store, row())
    run_id = only(store).info.run_id
    store.client.update_run(run_id, name="mine")
    store.client.set_tag(run_id, tags.NOTE, "my words")
    bring(store, row({"train": TRAIN, "score": SCORE}, at=Standing(2, 3, "c" * 40)))
    run = only(store)
    assert (run.info.run_name, run.data.tags[tags.NOTE]) == ("mine", "my words")
    assert run.data.tags[tags.CHANGE] == "ccccccc"


@pytest.mark.parametrize("is_anew", [False, True])
def test_begun(store: Store, is_anew: bool) -> None:
    """A begun run keeps its points; one that contradicts its result is made anew.

    Its name becomes that of the result.
    """
    own = {**process_tags(store.root), tags.NAMED: "live", tags.LIVE: "1"}
    run = store.client.create_run(store.experiment_id, 1_000, own, "live")
    sent = [Point("train/loss", 17.0, 1)] if is_anew else CURVE[1:2]
    store.client.log_batch(run.info.run_id, [Metric(p.key, p.value, 7, p.step) for p in sent])
    done = bring(store, row(), Begun(store.client.get_run(run.info.run_id), is_anew=is_anew))
    assert (done.run_id == run.info.run_id) == (not is_anew)
    assert done.name == only(store).info.run_name == "aaaaaaa rate=2"
    assert n_points(store) == len(CURVE)
