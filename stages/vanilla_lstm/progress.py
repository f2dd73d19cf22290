"""How far training is: a bar on a terminal, ten lines in a log."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from vanilla_lstm.evaluation import Epoch


class Progress:
    """Says what each epoch came to and how long is left, if all `n_epochs` are needed."""

    def __init__(self, n_epochs: int) -> None:
        self._n_epochs = n_epochs
        self._done = 0
        self._started = time.perf_counter()
        self._bar = tqdm(total=n_epochs, unit="epoch", disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self, epochs: Sequence[Epoch]) -> None:
        """Report epochs that have just ended."""
        tenths = self._done * 10 // self._n_epochs
        self._done += len(epochs)
        measures = f"loss {epochs[-1].loss:.4f}, val_accuracy {epochs[-1].val_accuracy:.4f}"
        self._bar.set_postfix_str(measures)
        self._bar.update(len(epochs))
        if self._bar.disable and self._done * 10 // self._n_epochs > tenths:
            left = (
                (time.perf_counter() - self._started) / self._done * (self._n_epochs - self._done)
            )
            print(f"epoch {self._done}/{self._n_epochs}: {measures}, {left:.0f} s left", flush=True)
