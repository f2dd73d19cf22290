"""The progress of training: a bar on a terminal, ten lines in a log."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from vanilla_lstm.learning.evaluation import Epoch


@contextmanager
def progress(n_epochs: int) -> Iterator[Callable[[Sequence[Epoch]], None]]:
    """Yield a callback that reports finished epochs.

    It shows the last epoch's metrics, and the time left if all `n_epochs` are needed.
    """
    started, done = time.perf_counter(), 0
    with tqdm(total=n_epochs, unit="epoch", disable=None) as bar:

        def report(epochs: Sequence[Epoch]) -> None:
            nonlocal done
            tenths = done * 10 // n_epochs
            done += len(epochs)
            measures = f"loss {epochs[-1].loss:.4f}, val_accuracy {epochs[-1].val_accuracy:.4f}"
            bar.set_postfix_str(measures)
            bar.update(len(epochs))
            if bar.disable and done * 10 // n_epochs > tenths:
                left = (time.perf_counter() - started) / done * (n_epochs - done)
                print(f"epoch {done}/{n_epochs}: {measures}, {left:.0f} s left", flush=True)

        yield report
