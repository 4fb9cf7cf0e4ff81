"""Pose extraction with a small RTMO, its weights, and their training."""
