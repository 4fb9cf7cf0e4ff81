"""Holdouts, evaluations, the gate, approvals, the champion, and what watches it."""
