"""This project's training alone: `fit`, compilation included, on what params.yaml's defaults say.

python ours.py EPOCHS [N_SAMPLES N_STEPS] prints the seconds of an epoch after the first, in which
the program is compiled, and then those of all.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
from vanilla_lstm import stage
from vanilla_lstm.model import build_model
from vanilla_lstm.sequences import generate
from vanilla_lstm.training import Phase, fit, set_threads


def main() -> None:
    """Train, and print what it took."""
    epochs, n_samples, n_steps = map(int, [*sys.argv[1:], "1000", "10"][:3])
    x, y = generate(n_samples, 1234, n_max=5, n_steps=n_steps, targets=[1])
    times: list[float] = []
    started = time.perf_counter()
    set_threads(32, 25)
    model = build_model(
        n_symbols=5,
        n_classes=5,
        per_step=False,
        cell="lstm",
        units=25,
        forget_bias="one",
        t_max=n_steps,
        seed=1234,
    )
    fit(
        model,
        x,
        y,
        [Phase(n_steps, epochs, 0.001)],
        batch_size=32,
        validation_split=0.2,
        seed=1234,
        on_epochs=lambda done: times.extend([time.perf_counter()] * len(done)),
    )
    print((times[-1] - times[0]) / max(1, epochs - 1))
    print(time.perf_counter() - started)


if __name__ == "__main__":
    stage.run(main, reads=[])  # with the signals and garbage collection of a stage
