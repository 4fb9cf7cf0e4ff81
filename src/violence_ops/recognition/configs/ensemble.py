"""A graph network, the small transformer and the forest together: the mean of their probabilities, each trained by itself."""

# ruff: noqa: C408
members = [
    dict(name="stgcnpp", family="stgcnpp"),
    dict(name="transformer", family="skeleton_transformer"),
    dict(name="forest", family="feature_forest"),
]
