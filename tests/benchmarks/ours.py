"""This project's training alone: `fit`, compilation included, with the params of params.yaml.

`python ours.py EPOCHS [N_SAMPLES N_STEPS]` prints the mean CPU-seconds of an epoch, leaving out the
first, in which the program is compiled, and then the seconds of the whole training.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
from bridge.run.stage import Stage, run
from vanilla_lstm.learning.model import build_model
from vanilla_lstm.learning.training import fit, set_threads
from vanilla_lstm.task.artifacts import DataSet
from vanilla_lstm.task.params import read_params


def main(_: Stage) -> None:
    """Train, and print how long it took."""
    epochs, n_samples, n_steps = map(int, [*sys.argv[1:], "1000", "10"][:3])
    params = read_params(Path(__file__).parents[2] / "params.yaml")
    data = params.data.model_copy(update={"n_steps": n_steps})
    dataset = DataSet.draw(data, params.train_data.model_copy(update={"n_samples": n_samples}))
    recipe = params.train.model_copy(update={"epochs": epochs})
    times: list[float] = []
    started = time.perf_counter()
    set_threads(recipe.batch_size, params.model.units)
    model = build_model(data, params.model, recipe.seed)
    fit(
        model,
        dataset.x,
        dataset.y,
        recipe,
        lambda done: times.extend([time.process_time()] * len(done)),
    )
    print((times[-1] - times[0]) / max(1, epochs - 1))
    print(time.perf_counter() - started)


if __name__ == "__main__":
    run(main)  # with a stage's settings for garbage collection
