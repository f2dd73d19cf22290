"""Put the prefix `dvc-mlflow run` before a command, and take it away.

The same functions work on a command as the shell gets it and on its source in a YAML file, where a
`style` (`'`, `"`, or "" for all others) decides how it is quoted, and spaces may be line breaks.
"""

import re
import shlex

PREFIX = "dvc-mlflow run "
_ESCAPED = (r"'\''", "'\"'\"'")
"""A single quote within single quotes, as this tool writes it and as Python does."""
_PREFIXED = re.compile(r"(^|[\s;&|(/])dvc-mlflow\s+run\s")
_REDIRECTIONS = {">", ">>", "<", ">&", "<&", "&>", "&>>", ">|", "<>", "<<<"}
_WORDS = (
    " . : ! [ [[ { } alias bg break builtin case cd command continue declare dirs do done echo "
    "elif else enable esac eval exec exit export false fg fi for function getopts hash if in jobs "
    "kill let local popd printf pushd pwd read readonly return select set shift shopt source test "
    "then time times trap true type typeset ulimit umask unalias unset until wait while "
)
"""What a shell does itself, without starting a program."""


def is_prefixed(command: str) -> bool:
    """Whether a command has the prefix anywhere in it."""
    return bool(_PREFIXED.search(f"{command} "))


def is_simple(command: str) -> bool:
    """Whether a shell would start one program for a command, and do nothing else.

    A command with quoted operators may count as more than one, which does no harm.
    """
    lexer = shlex.shlex(re.sub(r"^exec\s+", "", command), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = [*lexer]
    except ValueError:  # a quote that does not end
        return False
    operators = {word for word in words if {*word} <= {*"();<>|&"}}
    first = words[0] if words else ""
    is_program = first not in operators and f" {first} " not in _WORDS
    is_program = is_program and not re.match(r"\w+\+?=|-|#|\d*$", first)
    return is_program and operators <= _REDIRECTIONS and "\n" not in command


def put(command: str, simple: bool, style: str = "") -> str:
    """Return a command with the prefix."""
    if simple:
        found = re.match(rf"exec{_space(style)}", command)
        start = found.end() if found else 0
        return f"{command[:start]}{PREFIX}{command[start:]}"
    quote = _encode("'", style)
    text = command.replace(quote, _encode(_ESCAPED[0], style))
    return f"{PREFIX}-c {quote}{text}{quote}"


def take(command: str, style: str = "") -> str:
    """Return a command without the prefix: of `run -c`, the text that it would give a shell."""
    space, prefix = _space(style), _prefix(style)
    for quote in ("'", '"'):
        end = re.escape(_encode(quote, style))
        whole = rf"(?:exec{space})?{prefix}-c{space}{end}(.*){end}"
        if found := re.fullmatch(whole, command, re.DOTALL):
            escaped = (re.escape(_encode(text, style)) for text in _ESCAPED)
            return re.sub("|".join(escaped), _encode("'", style), found[1])
    return re.sub(rf"{prefix}(?:--{space})?", "", command)


def is_taken(command: str) -> bool:
    """Whether `take` returns what would run, even if somebody wrote the prefix by hand.

    A text in double quotes is expanded twice: by DVC's shell and by the shell of `run -c`. Without
    the prefix it would be expanded only once.
    """
    rest, prefix = take(command), _prefix()
    whole = re.fullmatch(rf"(?:exec\s+)?{prefix}-c\s+(.)?.*", command, re.DOTALL)
    if not whole:
        return rest != command and not re.search(rf"{prefix}-c", command)
    try:
        return shlex.split(command)[-2:] == ["-c", rest] and not (
            whole[1] == '"' and {*"$\\`"} & {*rest}
        )
    except ValueError:
        return False


def find(source: str, command: str, style: str, end: int) -> tuple[int, int]:
    """Return the last place of a command in the source before `end`; raises `ValueError`."""
    broken = r"(?:\\\r?\n[ \t]*)?" if style == '"' else ""  # as DVC breaks long lines
    words = (
        broken.join(re.escape(_encode(character, style)) for character in word)
        for word in command.split()
    )
    last = re.compile(f"(?=({_space(style).join(words)}))")  # matches can overlap
    for found in [*last.finditer(source, 0, end)][-1:]:
        return found.span(1)
    raise ValueError(f"{command!r}: is written in another way")


def _prefix(style: str = "") -> str:
    """Return the pattern of the prefix, with any path before it and one space after it."""
    space = _space(style)
    path = r"(?<![^\s;&|(])(?:[^\s;&|()'\"]*/)?"
    return rf"{path}dvc-mlflow{space}run(?:[ \t]|{space})"


def _space(style: str) -> str:
    """Return the pattern of spaces, which YAML also escapes in double quotes."""
    return r"(?:\s|\\[nt]|\\(?=\s))+" if style == '"' else r"\s+"


def _encode(text: str, style: str) -> str:
    """Return a text as a YAML scalar of this style has it."""
    if style == "'":
        return text.replace("'", "''")
    return text.replace("\\", r"\\").replace('"', r"\"") if style == '"' else text
