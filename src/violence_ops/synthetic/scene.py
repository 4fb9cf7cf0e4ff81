"""The scene of a source group: camera, background picture, occluders in front, light, the people who come there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from violence_ops.synthetic import textures
from violence_ops.synthetic.body import Body
from violence_ops.synthetic.camera import Camera, random_camera
from violence_ops.synthetic.colours import hsv, random_clothing
from violence_ops.synthetic.mesh import Clothing

SIZES = ((320, 240), (352, 288), (480, 270), (480, 360), (640, 360), (640, 480), (960, 540))
_SIZE_SHARES = (0.16, 0.1, 0.14, 0.14, 0.28, 0.12, 0.06)
RATES = (10.0, 12.5, 15.0, 20.0, 25.0, 30.0)
PEOPLE = 9  # persons known in a group


@dataclass(frozen=True)
class Occluder:
    """A box between camera and people: image polygons (4, 2) px of its faces with BGR colours in [0, 1]; depth in m."""

    faces: tuple[tuple[np.ndarray, np.ndarray], ...]
    depth: float


@dataclass(frozen=True)
class Light:
    """Direction to the light (3,), ambient share, gain of the picture, grey (infrared) or colour, tint (3,) BGR."""

    direction: np.ndarray
    ambient: float
    gain: float
    grey: bool
    tint: np.ndarray


@dataclass(frozen=True)
class Scene:
    """All that the clips of one source group share."""

    group: int
    camera: Camera
    fps: float
    light: Light
    bodies: tuple[Body, ...]
    clothes: tuple[Clothing, ...]
    occluders: tuple[Occluder, ...]
    background: np.ndarray
    back: float
    noise: float
    blur: float
    bits_per_pixel: float
    codec: str
    container: str
    clock: bool

    @property
    def source_group(self) -> str:
        return f"syn-{self.group:03d}"

    @property
    def camera_id(self) -> str:
        return f"cam-{self.group % 100:02d}"


def scene(seed: int, group: int) -> Scene:
    """The scene of `group` in the world of `seed`; the same arguments give the same scene."""
    rng = np.random.default_rng([seed, group, 1])
    width, height = SIZES[rng.choice(len(SIZES), p=_SIZE_SHARES)]
    camera = random_camera(rng, width, height)
    light = random_light(rng)
    indoors = bool(rng.random() < 0.65)
    back = camera.distance + float(rng.uniform(1.5, 4.0) if indoors else rng.uniform(4.0, 14.0))
    codec, container = (("h264", "mp4"), ("h264", "mp4"), ("mpeg4", "avi"), ("mpeg4", "mp4"), ("mjpeg", "avi"))[
        rng.integers(5)
    ]
    bodies = tuple(
        Body(
            float(np.clip(rng.normal(1.72, 0.09), 1.45, 1.98)),
            float(np.clip(rng.normal(1.05, 0.13), 0.82, 1.5)),
            float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.18)),
        )
        for _ in range(PEOPLE)
    )
    return Scene(
        group=group,
        camera=camera,
        fps=float(rng.choice(RATES)),
        light=light,
        bodies=bodies,
        clothes=tuple(random_clothing(rng) for _ in range(PEOPLE)),
        occluders=tuple(_occluders(rng, camera)),
        background=background(rng, camera, light, back, indoors),
        back=back,
        noise=float(rng.choice([0.0, rng.uniform(1, 4), rng.uniform(3, 12)])),
        blur=float(rng.choice([0.0, 0.6, 0.9, 1.4], p=[0.2, 0.4, 0.25, 0.15])),
        bits_per_pixel=float(np.exp(rng.uniform(np.log(0.06), np.log(0.5)))),
        codec=codec,
        container=container,
        clock=bool(rng.random() < 0.4),
    )


def random_light(rng: np.random.Generator) -> Light:
    """From bright day to a dim room; one camera in seven is grey."""
    direction = np.array([rng.normal(0, 0.7), rng.normal(-0.3, 0.6), rng.uniform(0.6, 1.6)])
    grey = bool(rng.random() < 0.15)
    gain = float(rng.choice([rng.uniform(0.3, 0.6), rng.uniform(0.55, 1.1), rng.uniform(1.0, 1.35)], p=[0.2, 0.6, 0.2]))
    tint = np.ones(3) if grey else np.clip(rng.normal(1.0, 0.07, 3), 0.8, 1.2)
    return Light(direction / np.linalg.norm(direction), float(rng.uniform(0.35, 0.75)), gain, grey, tint)


def expose(colours: np.ndarray, light: Light) -> np.ndarray:
    """Albedos times shade (..., 3) in [0, 1] to what the camera shows, float32 in [0, 255]."""
    shown = colours * light.tint * light.gain
    if light.grey:
        shown = np.repeat(shown @ np.array([[0.114], [0.587], [0.299]]), 3, axis=-1)
    return np.asarray(np.clip(shown, 0.0, 1.0) ** 0.85 * 255.0, np.float32)


def background(rng: np.random.Generator, camera: Camera, light: Light, back: float, indoors: bool) -> np.ndarray:
    """(H, W, 3) uint8 picture of the empty scene: ground, walls or a facade at `back` m, furniture behind the people."""
    size = (camera.width, camera.height_px)
    sky = (
        hsv(0.58, rng.uniform(0, 0.5), rng.uniform(0.4, 1.0)) if not indoors else hsv(0.1, 0.05, rng.uniform(0.3, 0.9))
    )
    image = np.broadcast_to(sky.astype(np.float32), (camera.height_px, camera.width, 3)).copy()
    reach = 30.0
    pixels = 640
    ground = textures.floor(rng, pixels, reach)
    step = reach / pixels
    middle = np.array([-reach / 2, 0.0, 0.0])
    paint(image, ground, camera.plane(middle, np.array([step, 0, 0.0]), np.array([0, step, 0.0])), size)
    tall = rng.uniform(2.6, 3.6) if indoors else rng.uniform(3.0, 9.0)
    if indoors or rng.random() < 0.6:
        _wall(image, rng, camera, np.array([-12.0, back, tall]), np.array([1.0, 0, 0]), 24.0, tall, 1.0)
    if indoors:
        for sign in (-1, 1):
            if rng.random() < 0.7:
                x = sign * rng.uniform(0.95, 1.6) * camera.distance * camera.width / 2 / camera.focal
                _wall(image, rng, camera, np.array([x, 0.4, tall]), np.array([0, 1.0, 0]), back - 0.4, tall, 0.8)
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(-1, 1) * camera.distance, back - rng.uniform(0.3, 0.9)
        dims = rng.uniform([0.4, 0.3, 0.4], [1.8, 0.6, 1.6])
        for face, colour in _box(rng, camera, np.array([x, y - dims[1], 0.0]), dims):
            cv2.fillConvexPoly(image, np.round(face).astype(np.int32), tuple(float(c) for c in colour), cv2.LINE_AA)
    shade = textures.clouds(rng, camera.height_px, camera.width, rng.uniform(0.0, 0.12))
    return np.asarray(expose(image * shade, light), np.uint8)


def paint(image: np.ndarray, texture: np.ndarray, homography: np.ndarray, size: tuple[int, int]) -> None:
    """Draw a texture that lies in a plane onto the image, in place."""
    cv2.warpPerspective(texture, homography, size, dst=image, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT)


def _wall(
    image: np.ndarray, rng: np.random.Generator, camera: Camera, corner: np.ndarray, along: np.ndarray,
    length: float, tall: float, shade: float,
) -> None:  # fmt: skip
    scale = 60.0 if length * 60 < 900 else 900 / length
    texture = textures.wall(rng, max(8, int(length * scale)), max(8, int(tall * scale))) * np.float32(shade)
    plane = camera.plane(corner, along / scale, np.array([0.0, 0.0, -1.0 / scale]))
    paint(image, texture, plane, (camera.width, camera.height_px))


def _box(
    rng: np.random.Generator, camera: Camera, corner: np.ndarray, dims: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Front, visible side and top of an upright box as image polygons with colours; `corner` is its lower left front."""
    colour = hsv(rng.uniform(0, 1), rng.beta(1.5, 3), rng.uniform(0.15, 0.9))
    (x, y, z), (w, d, h) = corner, dims
    front = [(x, y, z), (x + w, y, z), (x + w, y, z + h), (x, y, z + h)]
    top = [(x, y, z + h), (x + w, y, z + h), (x + w, y + d, z + h), (x, y + d, z + h)]
    side_x = x if x > 0 else x + w
    side = [(side_x, y, z), (side_x, y + d, z), (side_x, y + d, z + h), (side_x, y, z + h)]
    faces = [(side, 0.7), (front, 0.85)] + ([(top, 1.05)] if camera.height > z + h else [])
    return [(camera.project(np.array(face))[0], np.clip(colour * shade, 0, 1)) for face, shade in faces]


def _occluders(rng: np.random.Generator, camera: Camera) -> list[Occluder]:
    """Up to two things nearer than the people: a pillar, a counter or table, a rail."""
    found = []
    for _ in range(int(rng.choice(3, p=[0.5, 0.35, 0.15]))):
        y = camera.distance * rng.uniform(0.5, 0.75)
        half = y * camera.width / 2 / camera.focal
        x = rng.uniform(-1.0, 1.0) * half
        kind = rng.integers(3)
        if kind == 0:
            dims = np.array([rng.uniform(0.12, 0.4), 0.3, 6.0])
        elif kind == 1:
            dims = np.array([rng.uniform(0.6, 2.4), 0.6, rng.uniform(0.5, 1.05)])
        else:
            dims = np.array([rng.uniform(0.3, 0.8), 0.4, rng.uniform(0.7, 1.3)])
        found.append(Occluder(tuple(_box(rng, camera, np.array([x, y, 0.0]), dims)), float(y)))
    return found
