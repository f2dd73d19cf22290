"""Which plots DVC draws as lines: so light that a stage's command can import it."""

_TEMPLATES = ("", "linear", "simple", "smooth")


def is_table(path: str) -> bool:
    """Whether a file can hold curves."""
    return path.endswith((".csv", ".tsv", ".jsonl"))


def has_lines(template: str) -> bool:
    """Whether DVC's template of a plot has lines; a plot need not name one."""
    return template in _TEMPLATES
