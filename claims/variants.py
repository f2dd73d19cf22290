"""Read a claim's plan, variants.yaml, and its results, data/variants.csv."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from vanilla_lstm.task import params_file
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.schema import Params

VARIANTS = Path("variants.yaml")
RESULTS = Path("data/variants.csv")

FRESH = "LSTM, fresh seeds"
LAST_STEP = "the last step alone"
BEST_STEP = "the best single step"


class Plan(NamedTuple):
    """The content of variants.yaml; overrides are by dotted key, as `dvc exp run -S` takes them."""

    seeds: list[int]
    """Seeds for training data, weights and batches; those for test data are 1,000 higher."""
    fresh_seeds: list[int]
    """Further seeds for the model alone, first run after its recipe had been chosen."""
    test_key: str
    """The key of params.yaml that the tests vary."""
    tests: list[int]
    """The tested values; the first is the claim's own task."""
    trained: list[int]
    """The lowest and the highest of these values in the training of the first variant."""
    variants: dict[str, dict[str, Any]]
    """The overrides of each variant: first the claim's model, then its contrasts."""
    contrast_seeds: int
    """The number of seeds with which the contrasts are measured."""
    readers: list[str]
    """Which memoryless readers to measure as well: `LAST_STEP`, `BEST_STEP`."""

    def jobs(self, text: str) -> dict[tuple[str, int], list[Params]]:
        """Return the params of each test by variant and seed, made from the `text` of params.yaml.

        Raises `ParamsError`.
        """
        model, *_ = self.variants
        without: dict[str, dict[str, Any]] = {name: {} for name in (FRESH, *self.readers)}
        seeds_of = {model: self.seeds, FRESH: self.fresh_seeds}
        return {
            (name, seed): [self._params(text, overrides, seed, test) for test in self.tests]
            for name, overrides in {**self.variants, **without}.items()
            for seed in seeds_of.get(name, self.seeds[: self.contrast_seeds])
        }

    def _params(self, text: str, overrides: dict[str, Any], seed: int, test: int) -> Params:
        seeds = {"train_data.seed": seed, "train.seed": seed, "test_data.seed": seed + 1000}
        values = params_file.parse(text)
        for key, value in {**seeds, self.test_key: test, **overrides}.items():
            section, name = key.split(".")
            values[section][name] = value
        return parse_params(json.dumps(values))  # YAML as well


class Result(NamedTuple):
    """A row of variants.csv: the score of one variant, trained with one seed, on one test set."""

    variant: str
    seed: int
    test: int
    correctly_classified: int
    n_samples: int
    epochs: int


def read_plan(folder: Path) -> Plan:
    """Return the plan in `folder`'s variants.yaml."""
    return Plan(**params_file.parse(params_file.read(folder / VARIANTS), folder / VARIANTS))


def read_results(folder: Path) -> list[Result]:
    """Return the rows of data/variants.csv in `folder`."""
    with (folder / RESULTS).open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [Result(variant, *map(int, numbers)) for variant, *numbers in rows]
