"""Two STGCN++, one shown joints and one shown bones, each with their motion; their probabilities are averaged."""

# ruff: noqa: C408
members = [
    dict(name="joints", family="stgcnpp", streams=["joint", "joint_motion"]),
    dict(name="bones", family="stgcnpp", streams=["bone", "bone_motion"]),
]
