"""Moving objects of a synthetic street: people, riders and vehicles."""

from __future__ import annotations

import numpy as np

from trainer.data.synthetic.canvas import Canvas, Colour
from trainer.data.synthetic.street import GLASS, Rng, around, cloth, scaled

RUBBER: Colour = (28, 28, 30)


def figure(canvas: Canvas, rng: Rng, x: float, z: float, base: float, height: float, label: str) -> None:
    """A human body on `base` metres above the ground: legs, trunk, arms, head."""
    skin = around(rng, ((214, 170, 140), (140, 98, 72))[rng.integers(2)], 14)
    coat, trousers = cloth(rng), scaled(cloth(rng), 0.7)
    stride = rng.uniform(0.05, 0.2) * height / 1.7
    for side in (-1, 1):
        canvas.facing(x + side * stride, z, 0.17, base, base + height * 0.5, trousers, label)
    canvas.disc(x, base + height * 0.65, z, 0.5, height * 0.42, coat, label)
    arm = x + rng.choice((-0.26, 0.26))
    canvas.facing(arm, z, 0.12, base + height * 0.45, base + height * 0.8, scaled(coat, 0.85), label)
    canvas.disc(x, base + height * 0.92, z, 0.24, height * 0.16, skin, label)
    canvas.disc(x, base + height * 0.96, z, 0.24, height * 0.09, scaled(cloth(rng), 0.5), None)


def person(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Someone on foot: an adult, or a child."""
    figure(canvas, rng, x, z, 0, rng.uniform(1.5, 1.95) if rng.random() < 0.85 else rng.uniform(0.95, 1.4), "person")


def bicycle(canvas: Canvas, rng: Rng, x: float, z: float, ridden: bool = False) -> None:
    """Two wheels and a frame, seen from any side; its rider sits above it."""
    span, paint = rng.uniform(0.25, 1.1), scaled(cloth(rng), 0.8)
    at = canvas.camera
    for side in (-1, 1):
        canvas.ring(x + side * span / 2, 0.34, z, 0.68 * max(0.25, min(1, span)), 0.68, RUBBER, "bicycle")
    canvas.line([at(x - span / 2, 0.35, z), at(x, 0.85, z), at(x + span / 2, 0.35, z)], 0.1, paint, "bicycle", z)
    canvas.line([at(x - span / 3, 0.95, z), at(x + span / 3, 0.95, z)], 0.08, paint, "bicycle", z)
    if ridden:
        figure(canvas, rng, x, z, 0.45, rng.uniform(1.3, 1.55), "rider")


def motorcycle(canvas: Canvas, rng: Rng, x: float, z: float, ridden: bool = False) -> None:
    """A heavier machine with a solid body."""
    span, paint = rng.uniform(0.3, 1.3), cloth(rng)
    for side in (-1, 1):
        canvas.disc(x + side * span / 2, 0.32, z, 0.64 * max(0.35, min(1, span)), 0.64, RUBBER, "motorcycle")
    canvas.facing(x, z, max(span, 0.4), 0.35, 0.85, paint, "motorcycle")
    canvas.disc(x - span * 0.2, 0.85, z, max(span * 0.7, 0.4), 0.4, scaled(paint, 0.7), "motorcycle")
    canvas.facing(x + span * 0.3, z, max(0.12, span * 0.15), 0.6, 1.2, (60, 60, 62), "motorcycle")
    if ridden:
        figure(canvas, rng, x, z, 0.5, rng.uniform(1.25, 1.5), "rider")


def cyclist(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A rider on a bicycle."""
    bicycle(canvas, rng, x, z, ridden=True)


def motorcyclist(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A rider on a motorcycle."""
    motorcycle(canvas, rng, x, z, ridden=True)


def _box(
    canvas: Canvas, x: float, width: float, near: float, far: float, low: float, high: float, paint: Colour, label: str
) -> None:
    """The end of a box, and the side that the camera sees of it."""
    if abs(x) > width / 2:
        side = x - np.sign(x) * width / 2
        canvas.quad((side, near), (side, far), low, high, scaled(paint, 0.72), label)
    canvas.facing(x, near, width, low, high, paint, label)


def _wheels(canvas: Canvas, x: float, width: float, near: float, far: float, across: float, label: str) -> None:
    side = x - np.sign(x) * width / 2
    for z in (far - 0.18 * (far - near), near + 0.18 * (far - near)):
        canvas.disc(side, across / 2, z, across * 0.6, across, RUBBER, label)
    for end in (-1, 1):
        canvas.facing(x + end * width * 0.38, near, width * 0.14, 0, across * 0.55, RUBBER, label)


def _windows(canvas: Canvas, x: float, width: float, near: float, far: float, low: float, high: float, n: int) -> None:
    """Panes along the visible side and one across the end."""
    side, step = x - np.sign(x) * width / 2, (far - near) / n
    if abs(x) > width / 2:
        for i in range(n):
            start = near + i * step + step * 0.1
            canvas.quad((side, start), (side, start + step * 0.8), low, high, GLASS, None)
    canvas.facing(x, near, width * 0.82, low, high, scaled(GLASS, 1.15), None)


def car(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """From a small car to a van, from behind (red lamps) or in front (white ones)."""
    width, height, length = rng.uniform(1.6, 1.95), rng.uniform(1.35, 2.0), rng.uniform(3.4, 4.9)
    paint, far = cloth(rng), z + length
    waist = height * 0.58
    _wheels(canvas, x, width, z, far, 0.62, "car")
    _box(canvas, x, width * 0.86, z + length * 0.12, far - length * 0.25, waist, height, scaled(paint, 0.9), "car")
    _windows(canvas, x, width * 0.86, z + length * 0.12, far - length * 0.25, waist + 0.06, height - 0.12, 2)
    _box(canvas, x, width, z, far, 0.28, waist, paint, "car")
    lamp: Colour = (200, 36, 30) if rng.random() < 0.6 else (235, 232, 215)
    for end in (-1, 1):
        canvas.facing(x + end * width * 0.4, z, 0.24, waist - 0.3, waist - 0.12, lamp, None)
    canvas.facing(x, z, 0.5, 0.45, 0.57, (225, 225, 215), None)


def truck(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A cargo box behind a cab; from in front the cab is nearer."""
    width, height, length = 2.4, rng.uniform(2.7, 3.9), rng.uniform(6, 11)
    paint, far = cloth(rng), z + length
    _wheels(canvas, x, width, z, far, 0.95, "truck")
    if rng.random() < 0.5:
        _box(canvas, x, width, z + 2.2, far, 0.6, height, cloth(rng), "truck")
        _box(canvas, x, width * 0.96, z, z + 1.9, 0.5, min(height, 2.7), paint, "truck")
        _windows(canvas, x, width * 0.96, z, z + 1.9, 1.6, 2.3, 1)
    else:
        _box(canvas, x, width * 0.96, far - 2, far, 0.5, 2.7, cloth(rng), "truck")
        _box(canvas, x, width, z, far - 2.2, 0.6, height, paint, "truck")
        canvas.facing(x, z, 0.06, 0.8, height - 0.1, scaled(paint, 0.6), None)


def bus(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Doors low, a band of windows, a lit number on top."""
    width, height, far = 2.5, rng.uniform(2.9, 3.4), z + rng.uniform(9, 13)
    paint = cloth(rng)
    _wheels(canvas, x, width, z, far, 0.95, "bus")
    _box(canvas, x, width, z, far, 0.3, height, paint, "bus")
    _windows(canvas, x, width, z, far, 1.2, height - 0.7, 6)
    canvas.facing(x, z, width * 0.6, height - 0.5, height - 0.2, (225, 170, 60), None)


def train(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A tram on rails below a wire: longer and higher than a bus."""
    width, height, far = 2.5, rng.uniform(3.3, 3.8), z + rng.uniform(20, 34)
    paint = cloth(rng)
    for rail in (x - 0.72, x + 0.72):
        canvas.ground(rail - 0.05, rail + 0.05, 3, 80, (140, 138, 136), None)
    _box(canvas, x, width, z, far, 0.1, height, paint, "train")
    _box(canvas, x, width, z, far, 0.1, 0.5, scaled(paint, 0.5), "train")
    _windows(canvas, x, width, z, far, 1.3, height - 0.9, 9)
    at = canvas.camera
    canvas.line([at(x, height, z + 5), at(x, height + 1.2, z + 6)], 0.08, RUBBER, None, z)
