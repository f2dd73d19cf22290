"""DVC x MLflow: what a pipeline needs so that DVC owns its bytes and MLflow shows its results.

`bridge.run` is what every stage needs and never imports MLflow: it decides what files hold.
`bridge.record` is what MLflow remembers of a stage, and decides none of it.
"""
