"""What MLflow remembers of a pipeline: a row is a result, one model on one test set.

No run id travels through files: a stage finds the run of a model by the md5 of its file, the same
that DVC writes to dvc.lock.
"""
