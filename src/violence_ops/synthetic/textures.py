"""Procedural surface textures: floors, walls, furniture fronts."""

from __future__ import annotations

import cv2
import numpy as np

from violence_ops.synthetic.colours import hsv


def clouds(rng: np.random.Generator, height: int, width: int, contrast: float) -> np.ndarray:
    """(height, width, 1) float32 factors around 1 from noise at several scales."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((5, 0.5), (17, 0.3), (60, 0.2), (200, 0.15)):
        grain = rng.normal(0, 1, (max(2, cells * height // width), cells)).astype(np.float32)
        total += weight * cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
    return (1.0 + contrast * total)[..., None]


def _muted(rng: np.random.Generator) -> np.ndarray:
    return hsv(rng.uniform(0, 1), rng.beta(1.3, 4), rng.uniform(0.25, 0.95))


def floor(rng: np.random.Generator, size: int, metres: float) -> np.ndarray:
    """(size, size, 3) float32 BGR in [0, 1]: tiles, planks, carpet or asphalt for a square of `metres`."""
    kind = rng.integers(5)
    image = np.broadcast_to(_muted(rng).astype(np.float32), (size, size, 3)).copy()
    scale = size / metres
    if kind <= 1:
        other, tile = image[0, 0] * rng.uniform(0.6, 1.1), int(scale * rng.uniform(0.3, 0.9))
        rows, columns = np.indices((size, size)) // max(tile, 2)
        if kind == 0:
            image[(rows + columns) % 2 == 1] = other
        joints = (np.indices((size, size)) % max(tile, 2) == 0).any(axis=0)
        image[joints] *= rng.uniform(0.5, 0.9)
    elif kind == 2:
        plank = max(2, int(scale * rng.uniform(0.1, 0.25)))
        tones = rng.normal(1.0, 0.08, (size // plank + 1, 1, 1))
        image *= np.repeat(tones, plank, axis=0)[:size].astype(np.float32)
        image[::plank] *= 0.75
    for _ in range(int(rng.integers(0, 4))):
        corner = rng.integers(0, size, 2)
        span = (rng.uniform(0.6, 2.5, 2) * scale).astype(int)
        mat = (float(x) for x in _muted(rng))
        cv2.rectangle(image, corner.tolist(), (corner + span).tolist(), tuple(mat), -1 if rng.random() < 0.6 else 3)
    return np.asarray(image * clouds(rng, size, size, rng.uniform(0.03, 0.2)), np.float32)


def wall(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32 BGR in [0, 1], top row first: paint or bricks with doors, windows, posters, shelves."""
    image = np.broadcast_to(_muted(rng).astype(np.float32), (height, width, 3)).copy()
    kind = rng.integers(4)
    if kind == 0:
        brick = max(3, height // 28)
        image[::brick] *= 0.75
        for row in range(0, height, brick):
            image[row : row + brick, (row // brick % 2) * brick :: 2 * brick] *= 0.78
    elif kind == 1:
        image[int(height * rng.uniform(0.5, 0.8)) :] *= rng.uniform(0.5, 0.85)
    for _ in range(int(rng.integers(3, 10))):
        _wall_piece(image, rng)
    return np.asarray(image * clouds(rng, height, width, rng.uniform(0.02, 0.12)), np.float32)


def _wall_piece(image: np.ndarray, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    left = int(rng.integers(0, width))
    kind = rng.integers(5)
    colour = tuple(float(x) for x in _muted(rng))
    if kind == 0:  # a door
        top, span = int(height * 0.35), int(height * 0.35)
        cv2.rectangle(image, (left, top), (left + span, height), colour, -1)
        cv2.rectangle(image, (left, top), (left + span, height), (0.15, 0.15, 0.15), 2)
    elif kind == 1:  # a window
        top, span, tall = int(height * rng.uniform(0.1, 0.3)), int(height * rng.uniform(0.3, 0.9)), int(height * 0.35)
        bright = float(rng.choice([0.1, 0.75, 0.95]))
        cv2.rectangle(image, (left, top), (left + span, top + tall), (bright, bright * 0.95, bright * 0.9), -1)
        for part in range(3):
            x = left + span * part // 2
            cv2.line(image, (x, top), (x, top + tall), (0.3, 0.3, 0.3), 3)
    elif kind <= 3:  # shelves full of goods, or posters
        rows, columns = (
            (int(rng.integers(3, 8)), int(rng.integers(4, 22))) if kind == 2 else (1, int(rng.integers(1, 4)))
        )
        top, cell = int(height * rng.uniform(0.15, 0.5)), max(4, int(height * rng.uniform(0.04, 0.12)))
        for row in range(rows):
            for column in range(columns):
                x, y = left + column * cell, top + row * (cell + 3)
                goods = tuple(float(c) for c in hsv(rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(0.1, 1)))
                cv2.rectangle(image, (x, y), (x + int(cell * rng.uniform(0.5, 0.95)), y + cell), goods, -1)
    else:  # a post
        cv2.rectangle(image, (left, 0), (left + max(3, height // 18), height), colour, -1)
