"""A random forest on hand-made features of a window (`recognition.features`, `recognition.forest`): what needs fewest clips."""

# ruff: noqa: C408
max_windows_per_clip = 32  # of a long clip, spread evenly: one long video must not outweigh the others in training
forest = dict(trees=300, min_samples_leaf=2, max_features="sqrt")
