"""Colours of skins, hair, clothes and things, as BGR albedos in [0, 1]."""

from __future__ import annotations

import colorsys

import numpy as np

from violence_ops.synthetic.mesh import Clothing

_SKINS = np.array([[150, 185, 230], [125, 165, 215], [95, 140, 195], [70, 105, 160], [45, 70, 110], [35, 50, 80]]) / 255
_HAIRS = np.array([[15, 15, 18], [25, 35, 50], [40, 65, 95], [90, 140, 180], [150, 150, 150], [35, 45, 110]]) / 255


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """BGR albedo (3,) of hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return np.array([blue, green, red])


def cloth(rng: np.random.Generator, dark: float) -> np.ndarray:
    """A garment's colour: dark with probability `dark`, else white, pale or strong."""
    if rng.random() < dark:
        return hsv(rng.choice([0.6, rng.uniform(0, 1)]), rng.uniform(0, 0.5), rng.uniform(0.06, 0.28))
    if rng.random() < 0.3:
        return hsv(rng.uniform(0, 1), rng.uniform(0, 0.12), rng.uniform(0.7, 0.98))
    return hsv(rng.uniform(0, 1), rng.uniform(0.2, 0.9), rng.uniform(0.25, 0.9))


def random_clothing(rng: np.random.Generator) -> Clothing:
    """What one person wears."""
    hair = _HAIRS[rng.choice(len(_HAIRS), p=[0.35, 0.3, 0.12, 0.08, 0.1, 0.05])]
    if rng.random() < 0.15:
        hair = cloth(rng, 0.5)  # a cap or a hood
    skirt = bool(rng.random() < 0.08)
    return Clothing(
        skin=np.clip(_SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.9, 1.1), 0, 1),
        hair=hair,
        shirt=cloth(rng, 0.4),
        trim=cloth(rng, 0.3),
        trousers=cloth(rng, 0.65),
        shoes=cloth(rng, 0.65),
        long_sleeves=bool(rng.random() < 0.55),
        long_trousers=bool(rng.random() < 0.8) and not skirt,
        open_jacket=bool(rng.random() < 0.2),
        striped=bool(rng.random() < 0.15),
        skirt=skirt,
        long_hair=bool(rng.random() < 0.25),
        wrinkle_seed=int(rng.integers(2**31)),
    )
