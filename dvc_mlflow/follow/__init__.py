"""Bring MLflow up to what DVC knows: what runs, what is new, and what a history has.

It imports `rows`, which makes rows of results, `store`, which writes them, and `registry`; nothing
imports it but `commands` and `sweep`.
"""
