"""DVC x MLflow: what a pipeline needs so that DVC owns its bytes and MLflow shows its results.

`bridge.run` is what every stage needs. It decides the content of files and never imports MLflow.
`bridge.record` records a stage in MLflow and never affects its files.
"""
