"""Logistic regression on the ranks of hand-made features (`recognition.features`, `recognition.line`)."""

# ruff: noqa: C408
max_windows_per_clip = 32  # of a long clip, spread evenly: one long video must not outweigh the others in training
line = dict(quantiles=50, strength=0.01)
