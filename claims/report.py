"""Stage `report`: the folders' params, metrics and variants.csv -> README.md, pictures.

Every figure in README.md is computed here except the times, which were measured and are in the
header comments of the params.yaml files.
"""

import io
import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from vanilla_lstm.task.artifacts import METRICS, write_text
from vanilla_lstm.task.params_file import PARAMS, parse
from variants import BEST_STEP, FRESH, LAST_STEP, Plan, Result, read_plan, read_results

README = Path("README.md")
PICTURES = Path("pictures")
HOLDS = 0.99  # of the sequences, with every seed
# Not a dep, which DVC refuses; a new claim is a new dep as well.
DVC = parse(Path(__file__).with_name("dvc.yaml").read_text())
FOLDERS = DVC["stages"]["measure"]["foreach"]
AXES = {"test_data.n_steps": "steps of a test sequence", "test_data.insert": "inserted steps"}

INTRODUCTION = """\
# The post's five claims, measured

Each claim about the LSTM is a folder here: a `params.yaml` for the same four stages as the main
job. `make claims` runs all of them, measures each claim with five other seeds, against contrasts
and on sequences that training never saw, and writes this page: every score in it is computed from
the files in `*/data/` by the stage `report` of [dvc.yaml](dvc.yaml). In MLflow the five models are
in the experiment `vanilla-lstm-claims`.

A score is the number of test sequences, out of {n_samples:,}, that are classified correctly, from
the worst seed to the best. A reader is a table that maps the symbol of a single step to its most
frequent label; it has no memory at all.
"""

FRESH_SEEDS = """\
The seeds 201 to 205 were not used while the recipes were chosen. Run once afterwards on each
claim's own task, they gave:"""


def main() -> None:
    """Write one picture for each claim, and README.md."""
    sections, rows, fresh = [], [], []
    for name in FOLDERS:
        folder = Path(name)
        head = read_head((folder / PARAMS).read_text("utf-8"))
        plan, results = read_plan(folder), read_results(folder)
        committed = json.loads((folder / METRICS).read_text("utf-8"))
        rows.append(summary_row(name, head, plan, results))
        score = span(scores(results, FRESH, plan.tests[0]))
        fresh.append(f"[{name}](#{name}) {score}")
        sections.append(section(name, head, plan, results, committed))
        write_text(PICTURES / f"{name}.svg", picture(plan, results))
    header = ["claim", "task", "score", "on untrained lengths", "contrasts", "chance", "time"]
    line = f"{FRESH_SEEDS} {', '.join(fresh)}.\n"
    introduction = INTRODUCTION.format(n_samples=results[0].n_samples)
    text = "\n".join([introduction, markdown_table(header, rows), line, *sections])
    write_text(README, text)


def read_head(text: str) -> dict[str, str]:
    """Return the `# Key: value` entries in a params.yaml's head; indented lines continue one."""
    entries = re.findall(r"^# ([A-Z]\w+): (.*(?:\n#   .*)*)", text, re.M)
    return {key: value.replace("\n#  ", "") for key, value in entries}


def scores(results: list[Result], variant: str, test: int) -> list[int]:
    """Return the scores of a variant in a test, one per seed."""
    return [r.correctly_classified for r in results if (r.variant, r.test) == (variant, test)]


def span(values: list[int]) -> str:
    """Return the lowest and the highest score."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def summary_row(name: str, head: dict[str, str], plan: Plan, results: list[Result]) -> list[str]:
    """Return the claim's row of the first table."""
    names = [*plan.variants, *plan.readers]
    model, contrasts = names[0], names[1:]
    own, others = plan.tests[0], plan.tests[1:]
    score = scores(results, model, own)
    holds = min(score) >= HOLDS * results[0].n_samples
    contrast_cells = []
    for contrast in contrasts:
        values = scores(results, contrast, own)
        equal = ", **as good**" if min(values) >= HOLDS * results[0].n_samples else ""
        contrast_cells.append(f"{contrast}: {span(values)}{equal}")
    low, high = plan.trained
    unseen = [test for test in others if not low <= test <= high]
    return [
        f"[{head['Claim']}](#{name})",
        head["Task"],
        f"{span(score)}{'' if holds else ', **does not hold**'}",
        "<br>".join(f"{test}: {span(scores(results, model, test))}" for test in unseen),
        "<br>".join(contrast_cells),
        head["Chance"],
        head["Time"],
    ]


def section(
    name: str, head: dict[str, str], plan: Plan, results: list[Result], committed: dict[str, float]
) -> str:
    """Return the page's section on one claim."""
    tests = sorted(plan.tests)
    model, *others = plan.variants
    names = [model, FRESH, *others, *plan.readers]
    rows = [[v, *(span(scores(results, v, test)) for test in tests)] for v in names]
    low, high = plan.trained
    trained = f"{low} to {high}" if high > low else f"{low}"
    return f"""## {name}

{head["Task"][0].upper()}{head["Task"][1:]}. Example: `{head["Example"]}`

![Score over {AXES[plan.test_key]}]({PICTURES}/{name}.svg)

By {AXES[plan.test_key]} (the model is trained with {trained}; {plan.tests[0]} is the claim's task):

{markdown_table(["", *map(str, tests)], rows)}
{head["Lengths"]} {where_it_stops(plan, results)}

With the seeds of [params.yaml]({name}/params.yaml): {committed["correctly_classified"]} of
{committed["n_samples"]}. {head["Note"]} Source: {head["Source"]}
"""


def where_it_stops(plan: Plan, results: list[Result]) -> str:
    """Return a sentence with the tests in which some seed of the claim's model does not hold."""
    model, *_ = plan.variants
    n_samples, tests = results[0].n_samples, sorted(plan.tests)
    worst = {t: min(scores(results, model, t) + scores(results, FRESH, t)) for t in tests}
    stops = [f"{test} ({low})" for test, low in worst.items() if low < HOLDS * n_samples]
    if not stops:
        return f"It holds wherever it was tested, from {tests[0]} to {tests[-1]}."
    limit = f"{HOLDS * n_samples:.0f} of {n_samples:,}"
    return f"Its worst seed falls below {limit} at {', '.join(stops)}."


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def picture(plan: Plan, results: list[Result]) -> str:
    """Draw the score over the tests: the median of the seeds, and the range from worst to best."""
    tests = sorted(plan.tests)
    places = range(len(tests))
    # No time, no version and no random ids in the file: equal results give equal bytes.
    with mpl.rc_context({"svg.hashsalt": "vanilla-lstm", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 3.6), layout="tight")
        axes = figure.subplots()
        low, high = np.interp(plan.trained, tests, places)
        axes.axvspan(low - 0.1, high + 0.1, color="0.92", label="seen in training")
        for variant in [*plan.variants, *plan.readers]:
            values = np.array([scores(results, variant, test) for test in tests])
            line = ":" if variant in (LAST_STEP, BEST_STEP) else "-"
            (drawn,) = axes.plot(places, np.median(values, 1), f"o{line}", ms=3, label=variant)
            spread = values.min(1), values.max(1)
            axes.fill_between(places, *spread, color=drawn.get_color(), alpha=0.2, lw=0)
        axes.set(
            xticks=places,
            xticklabels=tests,
            xlabel=AXES[plan.test_key],
            ylabel=f"correct of {results[0].n_samples:,}",
            ylim=(0, 1.03 * results[0].n_samples),
        )
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


if __name__ == "__main__":
    main()
