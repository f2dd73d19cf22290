"""The DVC project: everything that touches DVC, mostly by its internal API.

It imports `pipeline` and the modules at the top. `project.py` opens a project; the other modules
hold the functions that read an open one. Only `restored_files` and `experiments` take DVC's lock
and write into a work tree, so the rest works beside a running `dvc repro`. Tests run with the
oldest and the newest DVC that are supported.
"""
