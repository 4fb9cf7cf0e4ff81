"""Judging a candidate against the champion: metrics, paired comparison, slices, the gate's policy, and the report."""
