"""Stage `measure`: params.yaml, variants.yaml -> data/variants.csv.

Trains every variant with every seed, in one process per CPU, and scores each on every test. Nothing
is recorded in MLflow, whose rows are for the folders' own params.
"""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vanilla_lstm.learning.evaluation import evaluate
from vanilla_lstm.task import params_file
from vanilla_lstm.task.artifacts import DataSet, write_csv
from vanilla_lstm.task.schema import Params
from vanilla_lstm.task.sequences import NO_LABEL, UInt8Array
from variants import BEST_STEP, LAST_STEP, RESULTS, Plan, Result, read_plan

Score = tuple[int, int, int]
"""The numbers of correctly classified sequences, of all sequences and of epochs."""


def main() -> None:
    """Measure all variants and readers, and write a row for each seed and test."""
    plan = read_plan(Path())
    write_csv(RESULTS, Result._fields, results(plan, plan.jobs(params_file.read())))


def results(plan: Plan, jobs: dict[tuple[str, int], list[Params]]) -> Iterator[Result]:
    """Yield the results of all jobs, which run in one process per CPU."""
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with context.Pool(len(os.sched_getaffinity(0))) as pool:
        measured = pool.imap(measure, [(name, tests) for (name, _), tests in jobs.items()])
        for (name, seed), scores in zip(jobs, measured, strict=True):
            for test, score in zip(plan.tests, scores, strict=True):
                yield Result(name, seed, test, *score)
            print(f"{name}, seed {seed}: {scores[0][0]} of {scores[0][1]}", flush=True)


def measure(job: tuple[str, list[Params]]) -> list[Score]:
    """Measure one variant or one reader in tests that differ only in `Plan.test_key`."""
    name, tests = job
    if name in (LAST_STEP, BEST_STEP):
        return [read_one_step(params, name == BEST_STEP) for params in tests]
    return train_and_test(tests)


def train_and_test(tests: list[Params]) -> list[Score]:
    """Train and test as the stages do."""
    from vanilla_lstm.learning.model import build_model, predict
    from vanilla_lstm.learning.training import fit

    params = tests[0]
    dataset = DataSet.draw(params.data, params.train_data)
    padded = params.train.pads(dataset.own)
    model = build_model(dataset.data, params.model, params.train.seed, padded)
    epochs = len([*fit(model, dataset.x, dataset.y, params.train)])
    scores = []
    for params in tests:
        test = DataSet.draw(params.data, params.test_data)
        result = evaluate(predict(model, test.x, params.evaluate.batch_size), test.y)
        scores.append((result.correctly_classified, result.n_samples, epochs))
    return scores


def read_one_step(params: Params, best: bool) -> Score:
    """Score a memoryless reader: a table from one step's symbol to its most frequent label.

    It counts as many sequences as the model is trained with, drawn like the test sequences. The
    step is the last one or, with `best`, the most informative one; with one label per step it is
    the labelled step.
    """
    n_samples, seed = params.train_data.n_samples, params.train_data.seed
    like_test = replace(params.test_data, n_samples=n_samples, seed=seed)
    (x, y, *_), (x_test, y_test, *_) = (
        DataSet.draw(params.data, own) for own in (like_test, params.test_data)
    )
    if params.data.per_step:
        labelled = y != NO_LABEL
        chosen = count(x[labelled], y[labelled]).argmax(1)[x_test]
        right = ((chosen == y_test) | (y_test == NO_LABEL)).all(1)
    else:
        tables = {step: count(x[:, step], y) for step in range(x.shape[1])[0 if best else -1 :]}
        step = max(tables, key=lambda step: int(tables[step].max(1).sum()))
        right = tables[step].argmax(1)[x_test[:, step]] == y_test
    return int(right.sum()), len(y_test), 0


def count(symbols: UInt8Array, labels: UInt8Array) -> npt.NDArray[np.int64]:
    """Count how often each symbol `[n]` has each label `[n]`; returns `[256, 256]`."""
    pairs = symbols.astype(np.int64) * 256 + labels
    return np.bincount(pairs, minlength=256 * 256).reshape(256, 256)


if __name__ == "__main__":
    main()
