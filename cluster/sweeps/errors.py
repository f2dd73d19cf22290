"""What stops a sweep without being a bug."""

import re


class SweepError(Exception):
    """A mistake of the user's, or a fault of a service; one line without passwords."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"//[^/@\s]*@", "//***@", message))
