"""Datasets, training and prediction."""
