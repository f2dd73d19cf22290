"""The progress of training: a bar on a terminal, ten lines in a log."""

import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from vanilla_lstm.learning.evaluation import Epoch


def progress(epochs: Iterable[Epoch], n_epochs: int) -> Iterator[Epoch]:
    """Yield the epochs, and show the last one's measures and the time left.

    The time is that of all `n_epochs`; a phase that ends early takes less.
    """
    started = time.perf_counter()
    with tqdm(total=n_epochs, unit="epoch", disable=None) as bar:
        for epoch in epochs:
            yield epoch
            done = epoch.epoch
            measures = f"loss {epoch.loss:.4f}, val_accuracy {epoch.val_accuracy:.4f}"
            bar.set_postfix_str(measures, refresh=False)
            bar.update()
            if bar.disable and done * 10 // n_epochs > (done - 1) * 10 // n_epochs:
                left = (time.perf_counter() - started) / done * (n_epochs - done)
                print(f"epoch {done}/{n_epochs}: {measures}, {left:.0f} s left", flush=True)
