"""What sweep.py on the driver and trial.py on a node are made of."""

from sweeps.node import masked


class SweepError(Exception):
    """A mistake of the user's, or a fault of a service; one line without passwords."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))
