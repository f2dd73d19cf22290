"""This project's training alone: `fit`, compilation included, with the params of params.yaml.

`python ours.py EPOCHS [N_SAMPLES N_STEPS]` prints the mean CPU-seconds of an epoch, leaving out the
first, in which the program is compiled, and then the seconds of the whole training.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))
from vanilla_lstm.learning.model import build_model
from vanilla_lstm.learning.training import fit
from vanilla_lstm.task.artifacts import DataSet
from vanilla_lstm.task.params import read_params


def main() -> None:
    """Train, and print how long it took."""
    epochs, n_samples, n_steps = map(int, [*sys.argv[1:], "1000", "10"][:3])
    params = read_params(Path(__file__).parents[1] / "params.yaml")
    data = replace(params.data, n_steps=n_steps)
    dataset = DataSet.draw(data, replace(params.train_data, n_samples=n_samples))
    recipe = replace(params.train, epochs=epochs)
    started = time.perf_counter()
    padded = recipe.pads(dataset.own)
    model = build_model(data, params.model, recipe.seed, padded)
    times = [time.process_time() for _ in fit(model, dataset.x, dataset.y, recipe)]
    print((times[-1] - times[0]) / max(1, epochs - 1))
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
