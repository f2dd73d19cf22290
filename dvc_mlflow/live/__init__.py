"""A stage while it runs: the shell in front of it, its command, its recorder and its row.

It imports `registry`, `rows` and what they import. But what DVC starts for each command (shell,
stage_command and what they import) uses of the standard library only what is written in C or loaded
anyway: it takes 12 ms, of which `re`, `pathlib`, `typing` or `signal` would each take several more.
"""
