"""Bring MLflow up to what DVC knows: read results, find their runs, and add what these lack.

It imports `rows`, which makes rows of results, and `store`, which writes them; nothing imports it
but `commands`, `live` and `sweep`.
"""
