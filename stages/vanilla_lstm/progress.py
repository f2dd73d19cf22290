"""Training progress: a bar on a terminal, a line every ten seconds in a log."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from vanilla_lstm.learning.evaluation import Epoch


@contextmanager
def progress(n_epochs: int) -> Iterator[Callable[[Sequence[Epoch]], None]]:
    """Yield a callback that reports finished epochs.

    It shows the last epoch's measures and the time left, assuming that all `n_epochs` are needed.
    """
    seconds = 0.1 if sys.stderr.isatty() else 10
    with tqdm(total=n_epochs, unit="epoch", mininterval=seconds) as bar:

        def report(epochs: Sequence[Epoch]) -> None:
            last = epochs[-1]
            measures = f"loss {last.loss:.4f}, val_accuracy {last.val_accuracy:.4f}"
            bar.set_postfix_str(measures, refresh=False)
            bar.update(len(epochs))

        yield report
