"""Print what has changed since a commit as Markdown: `python tools/pr_report.py <commit>`.

Run `dvc repro` first: the tables compare that commit with the working tree. The exit status is 1 if
the committed dvc.lock is not what the code makes.
"""

import subprocess
import sys

DVC = [sys.executable, "-m", "dvc"]
TABLES = {"Metrics": ["metrics", "diff", "--precision", "6"], "Params": ["params", "diff"]}


def run(*command: str) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def lock_problem() -> str:
    """Return why the committed dvc.lock is not what the code makes, or nothing if it is."""
    if subprocess.run([*DVC, "status", "--quiet"], check=False).returncode:
        return "The outputs were not made by this code and these params: run `make repro`."
    changed = run("git", "diff", "--name-only", "HEAD", "--", "dvc.lock", "data").split()
    return f"`make repro` has changed {', '.join(changed)}: commit them." if changed else ""


def main(base: str) -> None:
    """Print the report."""
    for project in (".", "properties"):
        for title, command in TABLES.items():
            table = run(*DVC, "--cd", project, *command, "--md", base).strip()
            if table.count("\n") > 1:  # more than its header
                print(f"### {title}{'' if project == '.' else f' of {project}/'}\n\n{table}\n")
    problem = lock_problem()
    print("### dvc.lock\n\n" + (problem or "It is what the code makes: the same bytes."))
    sys.exit(bool(problem))


if __name__ == "__main__":
    main(*sys.argv[1:])
