"""Four STGCN++, one per stream, whose probabilities are averaged, as its authors do it."""

# ruff: noqa: C408
members = [
    dict(name=stream, family="stgcnpp", streams=[stream]) for stream in ("joint", "bone", "joint_motion", "bone_motion")
]
