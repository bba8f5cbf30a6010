"""paint(): one synthetic road scene, drawn from far to near, then lit, blurred and made noisy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFilter

from trainer.data.synthetic import street, traffic
from trainer.data.synthetic.canvas import IDS, Camera, Canvas
from trainer.data.synthetic.street import Rng
from trainer.rng import generator

T = TypeVar("T")

FAR = 95.0  # metres

Drawing = Callable[[Canvas, Rng, float, float], None]  # x, z
Frontage = Callable[[Canvas, Rng, float, float, float, float], None]  # x, near, far, light

FRONTAGES: tuple[tuple[Frontage, float], ...] = (
    (street.building, 0.42), (street.hedge, 0.18), (street.fence, 0.22), (street.wall, 0.18),
)  # fmt: skip
ON_THE_PAVEMENT: tuple[tuple[Drawing, float], ...] = (
    (traffic.person, 0.36), (street.pole, 0.18), (street.tree, 0.16), (street.traffic_sign, 0.12),
    (street.traffic_light, 0.07), (traffic.bicycle, 0.06), (street.bin_or_box, 0.05),
)  # fmt: skip
ON_THE_ROAD: tuple[tuple[Drawing, float], ...] = (
    (traffic.car, 0.62), (traffic.cyclist, 0.11), (traffic.truck, 0.08), (traffic.motorcyclist, 0.06),
    (traffic.bus, 0.06), (traffic.person, 0.05), (traffic.train, 0.02),
)  # fmt: skip

# Each image shows two of the first and one of the second, in turn, so that small sets contain rare classes.
RARE_ON_THE_ROAD: tuple[Drawing, ...] = (
    traffic.train, traffic.bus, traffic.truck, traffic.motorcyclist, traffic.motorcycle, traffic.cyclist,
)  # fmt: skip
RARE_ON_THE_PAVEMENT: tuple[Drawing, ...] = (street.traffic_light, street.traffic_sign)

# Relative strength of texture at three scales: single pixels, patches of 3, patches of 12.
_TEXTURE = {
    "road": (0.05, 0.05, 0.07), "sidewalk": (0.06, 0.06, 0.07), "building": (0.06, 0.06, 0.06),
    "wall": (0.09, 0.08, 0.07), "fence": (0.05, 0.08, 0.05), "vegetation": (0.20, 0.24, 0.12),
    "terrain": (0.14, 0.16, 0.14), "sky": (0.0, 0.02, 0.06),
}  # fmt: skip
_GROUND = np.zeros(256, bool)
_GROUND[[IDS["road"], IDS["sidewalk"], IDS["terrain"]]] = True
_STRENGTH = np.full((3, 256), 0.04, np.float32)
for _name, _values in _TEXTURE.items():
    _STRENGTH[:, IDS[_name]] = _values


def paint(seed: int, split: str, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and Cityscapes label ids (H, W) uint8."""
    rng = generator(seed, "scenes", split, index)
    canvas = _open_air(rng, size)
    left, right, pavement = _ground(canvas, rng)
    for side, edge in ((-1, left - pavement), (1, right + pavement)):
        _frontage(canvas, rng, side, edge)
    _things(canvas, rng, left, right, pavement, index)
    image, label = _expose(canvas, rng)
    _frame(image, label, rng)
    return image, label


def _open_air(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Camera, weather, sky with clouds, and the skyline."""
    height, width = size
    camera = Camera(
        focal=width * rng.uniform(0.8, 1.05),
        centre=width * rng.uniform(0.38, 0.62),
        horizon=height * rng.uniform(0.36, 0.50),
        height=rng.uniform(1.2, 1.9),
        bend=rng.normal(0, 0.0012),
    )
    overcast = rng.random() < 0.5
    zenith = np.array((176, 180, 186) if overcast else (96, 140, 200)) * rng.uniform(0.85, 1.1)
    haze = np.array((205, 206, 206)) * rng.uniform(0.85, 1.12)
    canvas = Canvas(size, camera, (float(haze[0]), float(haze[1]), float(haze[2])), rng.uniform(70, 400))
    rows = np.linspace(0, 1, height)[:, None] / (camera.horizon / height)
    sky = zenith + (haze - zenith) * rows.clip(0, 1)
    canvas.image.paste(Image.fromarray(np.broadcast_to(sky[:, None], (height, width, 3)).clip(0, 255).astype(np.uint8)))
    canvas.label.paste(IDS["sky"], (0, 0, width, height))
    for _ in range(rng.integers(0, 7)):
        x, y, across = rng.uniform(-70, 70), rng.uniform(8, 45), rng.uniform(10, 40)
        canvas.disc(x, y, 90, across, across * rng.uniform(0.1, 0.3), street.around(rng, (226, 228, 230), 8), None)
    far = camera(0, 0, FAR)[1]
    ground = street.around(rng, ((96, 112, 62), (120, 108, 84))[rng.integers(2)], 16)
    canvas.polygon([(0, far), (width, far), (width, height), (0, height)], ground, "terrain", 18)
    for x in np.arange(-75, 76, 9).tolist():
        tall = rng.uniform(2, 16)
        if rng.random() < 0.5:
            canvas.disc(x, tall * 0.4, FAR, 16, tall, street.around(rng, (70, 88, 52), 12), "vegetation")
        else:
            canvas.facing(x, FAR, rng.uniform(7, 14), 0, tall, street.around(rng, (128, 122, 116), 18), "building")
    return canvas


def _ground(canvas: Canvas, rng: Rng) -> tuple[float, float, float]:
    """Road, lane marks, kerbs and pavements. Returns the road's two edges and the pavement's width in metres."""
    near = canvas.camera.focal * canvas.camera.height / (canvas.height - canvas.camera.horizon) * 0.9
    wide, offset = rng.uniform(6.5, 15.0), rng.uniform(0.3, 0.7)
    left, right, pavement = -wide * offset, wide * (1 - offset), rng.uniform(1.5, 5.0)
    asphalt = street.around(rng, street.scaled((112, 111, 112), rng.uniform(0.65, 1.25)), 7)
    paving = street.around(rng, street.scaled((132, 126, 122), rng.uniform(0.75, 1.25)), 10)
    canvas.ground(left - pavement, right + pavement, near, FAR, paving, "sidewalk")
    canvas.ground(left, right, near, FAR, asphalt, "road")
    for edge in (left, right):
        canvas.ground(edge - 0.12, edge + 0.12, near, 45, street.scaled(paving, 1.25), None)
    mark = street.scaled((222, 220, 210), rng.uniform(0.7, 1.0))
    for lane in range(1, max(2, round(wide / 3.4))):
        x = left + wide * lane / max(2, round(wide / 3.4))
        solid = rng.random() < 0.25
        for z in np.arange(near, 45, 6.0).tolist():
            canvas.ground(x - 0.09, x + 0.09, z, z + (6.0 if solid else 2.8), mark, None)
    if rng.random() < 0.25:
        start = rng.uniform(7, 18)
        for x in np.arange(left + 0.3, right - 0.5, 1.0).tolist():
            canvas.ground(x, x + 0.5, start, start + 3, mark, None)
    for _ in range(rng.integers(0, 4)):
        x, z, across = rng.uniform(left, right), rng.uniform(near, 25), rng.uniform(0.4, 2.0)
        canvas.ground(x, x + across, z, z + across * 2, street.scaled(asphalt, rng.uniform(0.75, 1.15)), None)
    lit = int(rng.integers(105, 215))
    for _ in range(rng.integers(0, 5)):
        z, x = rng.uniform(near, 40), rng.uniform(left - pavement, right)
        canvas.cast_shadow(x, x + rng.uniform(1, 9), z, z + rng.uniform(1, 12), lit)
    return left, right, pavement


def _frontage(canvas: Canvas, rng: Rng, side: int, edge: float) -> None:
    """Buildings, walls, fences and hedges along one side of the street, from far to near, with gaps."""
    light, z = rng.uniform(0.6, 1.1), FAR
    x = edge + side * rng.uniform(0.0, 5.0)
    while z > 3.5:
        near = max(z * rng.uniform(0.55, 0.85) - 1, 2.5)
        if rng.random() < 0.85:
            low = _pick(rng, FRONTAGES)
            if low is not street.building and rng.random() < 0.6:
                street.building(canvas, rng, x + side * rng.uniform(3, 9), near, z, light)
            low(canvas, rng, x, near, z, light)
        z = near


def _things(canvas: Canvas, rng: Rng, left: float, right: float, pavement: float, index: int) -> None:
    """Street furniture, people and traffic, painted from far to near."""
    placed: list[tuple[float, float, Drawing]] = []
    for _ in range(rng.integers(8, 22)):
        side = rng.integers(2)
        x = (left - rng.uniform(0.2, pavement)) if side else (right + rng.uniform(0.2, pavement))
        placed.append((_depth(rng, 5.0), x, _pick(rng, ON_THE_PAVEMENT)))
    lanes = np.linspace(left + 1.3, right - 1.3, max(2, round((right - left) / 3.2)))
    for _ in range(rng.integers(1, 9)):
        drawing = _pick(rng, ON_THE_ROAD)
        placed.append((_depth(rng, 8.0), float(rng.choice(lanes)) + rng.normal(0, 0.3), drawing))
    turn = len(RARE_ON_THE_ROAD)
    for drawing in (RARE_ON_THE_ROAD[index % turn], RARE_ON_THE_ROAD[(index + index // turn + 2) % turn]):
        placed.append((rng.uniform(8, 26), rng.uniform(left + 0.6, right), drawing))
    beside = RARE_ON_THE_PAVEMENT[index % len(RARE_ON_THE_PAVEMENT)]
    placed.append((rng.uniform(9, 20), rng.choice((left, right)) * 1.05, beside))
    for z, x, drawing in sorted(placed, key=lambda thing: -thing[0]):
        canvas.cast_shadow(x - 0.9, x + 0.9, z - 0.4, z + 2.5, 120)
        drawing(canvas, rng, x, z)


def _depth(rng: Rng, near: float) -> float:
    """A random depth in metres, spread evenly over the image rows, so most objects are far and small."""
    return float(near * (FAR * 0.6 / near) ** rng.random() ** 1.2)


def _pick(rng: Rng, choices: Sequence[tuple[T, float]]) -> T:
    """One of (value, probability) pairs."""
    at = rng.random() * sum(share for _, share in choices)
    for value, share in choices:
        at -= share
        if at <= 0:
            return value
    return choices[-1][0]


def _expose(canvas: Canvas, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Apply texture, shadows, light, blur, gamma and sensor noise; returns image and label."""
    label = np.array(canvas.label)
    lit = np.where(_GROUND[label], np.asarray(canvas.shade, np.float32) / 255, np.float32(1))
    night = rng.random() < 0.06
    gain = rng.uniform(0.25, 0.45) if night else rng.uniform(0.7, 1.15)
    cast = gain * rng.normal(1, 0.035, 3) * ((0.95, 0.97, 1.1) if night else (1, 1, 1))
    across = np.linspace(rng.uniform(0.8, 1.15), rng.uniform(0.8, 1.15), canvas.width)
    light = (_texture(label, rng) * lit * across.astype(np.float32))[..., None] * cast.astype(np.float32)
    scene = Image.fromarray((np.asarray(canvas.image) * light).clip(0, 255).astype(np.uint8))
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7) * canvas.width / 192))
    # In double precision and rounded, because the vectorised float32 power differs between processors.
    gamma = rng.uniform(0.8, 1.25)
    response = np.array([round(255 * (value / 255) ** gamma) for value in range(256)], np.float32)
    grain = rng.standard_normal((*label.shape, 3), dtype=np.float32) * np.float32(rng.uniform(2, 7))
    return (response[np.asarray(scene)] + grain).clip(0, 255).astype(np.uint8), label


def _texture(label: np.ndarray, rng: Rng) -> np.ndarray:
    """A factor around 1 for each pixel (H, W) float32."""
    height, width = label.shape
    factor = np.ones((height, width), np.float32)
    for scale, patch in enumerate((1, 3, 12)):
        coarse = rng.standard_normal((-(-height // patch) + 1, -(-width // patch) + 1), dtype=np.float32)
        noise = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
        factor += _STRENGTH[scale][label] * noise
    return factor


def _frame(image: np.ndarray, label: np.ndarray, rng: Rng) -> None:
    """Add ignored areas: the bonnet of the camera's car, and a border without image."""
    height, width = label.shape
    if rng.random() < 0.7:
        across = (np.arange(width) - width / 2) / (width / 2)
        top = height * (rng.uniform(0.9, 0.97) + rng.uniform(0.05, 0.14) * across**2)
        hood = np.arange(height)[:, None] >= top
        image[hood] = image[hood] // 4 + np.uint8(rng.integers(10, 60))
        label[hood] = IDS["ego vehicle"]
    if rng.random() < 0.5:
        for edge in (np.s_[:1], np.s_[-1:], np.s_[:, :1], np.s_[:, -1:]):
            image[edge], label[edge] = 0, IDS["rectification border"]
