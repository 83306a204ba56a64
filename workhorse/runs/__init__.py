"""Files of a run: its folder, manifest, checkpoints, metrics and policy. No pickle is written or read.

`policy`, `folder` and `manifest` need NumPy alone; `checkpoint` imports JAX, `metrics` polars.
"""
