"""`dvc-mlflow restore ROW`: a row's code, params and files in a folder of their own."""

import argparse
from collections.abc import Mapping

from ..errors import ProjectError, ToolError, say, warn
from ..pipeline.keys import md5_tag
from ..pipeline.row_stages import locked_digests
from ..pipeline.stages import leads_out
from ..pipeline.tags import FOLDER, FOUND_BY, KEPT, LOCK, MD5, TREE, tagged
from ..place import main_repository
from ..project.definitions import read_pipeline
from ..project.restored_files import restore, restored_project
from ..rows import kept_trees
from ..rows.origin import KeptTree
from ..rows.restored_folder import RestoredFolder, made, place
from ..store.runs import read_run


def run(arguments: argparse.Namespace) -> int:
    """Restore the row that the command line names; return the exit status."""
    root, named = main_repository().resolve(), arguments.run
    row = read_run(root, named)
    tags = row.data.tags
    if not tagged(tags, LOCK):
        raise ToolError(f"{named}: this row has no result to restore; it is {row.info.status}")
    if leads_out(project := tags.get(FOLDER, "")):
        raise ToolError(f"{named}: its folder {project!r} leads out of the repository")
    commit = kept_trees.find(root, KeptTree(tags.get(KEPT, ""), tags.get(TREE, "")))
    path = place(root, row.info.run_name or "", tags.get(FOUND_BY, "").split(), row.info.run_id)
    shown = path.relative_to(root)
    with made(root, path, project, commit) as folder:
        lacks, links = folder.check_out(commit)
        problems = _restore(tags, folder)
    problems |= {f"{file} is missing": _LACKED for file in lacks}
    say(f"{shown}: {'created' if folder.is_new else 'already exists'}")
    for link in links:
        say(f"{shown / link}: is a link that leads out of the folder; left out")
    said = set[str]()
    for what, why in sorted(problems.items(), key=lambda each: each[1]):
        warn(f"{shown / project}: {what}: {'as above' if why in said else why}")
        said.add(why)
    if not problems:
        say(f"{shown / project}: restored, with the md5s of its dvc.lock")
    return bool(problems)


_LACKED = "git lacks it; `git fetch --refetch --no-filter` completes a partial clone"


def _restore(tags: Mapping[str, str], folder: RestoredFolder) -> dict[str, str]:
    """Bring the files of a row's results into its folder; return what is missing, and why.

    Another .gitignore than when the row was made can hide a .dvc file, and so change the digests.
    Then the outputs say which stages are meant.
    """
    digests, md5s = tagged(tags, LOCK), {k: tags[k] for k in tags if k.startswith(MD5)}
    try:
        with restored_project(folder.main, folder.project) as project:
            pipeline = read_pipeline(project)
            locked, every = locked_digests(pipeline), [*pipeline.stages.values()]
            outs = {s.name: {md5_tag(out.path): out.md5 for out in s.outs} for s in every}
            stages = [s for s in every if locked.get(s.name) in digests.values()]
            if len(stages) < len(digests):
                stages = [s for s in every if outs[s.name] and outs[s.name].items() <= md5s.items()]
            scope = pipeline.scope(stages)
            problems = restore(project, scope, folder.main, is_new=folder.is_new)
    except ProjectError as error:
        return {"what DVC keeps is missing": f"{error}"}
    is_whole = md5s and md5s.keys() <= {key for stage in scope for key in outs[stage.name]}
    lost = [] if is_whole else [n for n, each in digests.items() if each not in locked.values()]
    return problems | {f"the result of {n}": "the dvc.lock of its git tree lacks it" for n in lost}
