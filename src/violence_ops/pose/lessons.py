"""What a training draws its pictures from: synthetic stills, and real frames that larger models have labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from violence_ops.pose.album import Print
from violence_ops.pose.samples import Sample

REAL_SHARE = 0.5
_OF_A_CLIP = 4  # pictures drawn together, because making a scene costs more than drawing it
_LIKED = 3  # a real picture with so many labelled persons comes as often as one with more


@dataclass
class Lessons:
    """Draws pictures; call it with a random generator.

    `draw` gives the stills of a new synthetic scene. `scenes` of them are made once each, when first wanted, and come
    again differently augmented: making one costs as much as learning from it.
    """

    draw: Callable[[np.random.Generator], list[Sample]]
    real: Sequence[Print] = ()
    scenes: int = 2000
    seed: int = 0
    _made: dict[int, list[Print]] = field(default_factory=dict, repr=False)

    def __call__(self, rng: np.random.Generator) -> list[Sample]:
        """A few samples in their own pixels."""
        if self.real and rng.random() < REAL_SHARE:
            chosen = rng.choice(len(self.real), _OF_A_CLIP, p=self._weights())
            return [self.real[int(index)].sample() for index in chosen]
        scene = int(rng.integers(self.scenes))
        if scene not in self._made:
            own = np.random.default_rng([self.seed, scene, 6])
            self._made[scene] = [Print.of(still) for still in self.draw(own)]
        return [packed.sample() for packed in self._made[scene]]

    def _weights(self) -> np.ndarray:
        known = np.array([min((~each.labels.ignored).sum(), _LIKED) for each in self.real])
        weights = 0.3 + known
        return np.asarray(weights / weights.sum())
