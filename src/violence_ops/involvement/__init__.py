"""Who takes part in what happens: components, composite score and ranking of the tracks (SPEC 4 and 5)."""

from violence_ops.involvement.ranking import rank

__all__ = ["rank"]
