"""A graph network, the forest and the line together: the mean of their probabilities, each trained by itself."""

# ruff: noqa: C408
members = [
    dict(name="stgcnpp", family="stgcnpp"),
    dict(name="forest", family="feature_forest"),
    dict(name="line", family="feature_line"),
]
