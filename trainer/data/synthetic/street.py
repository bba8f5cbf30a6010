"""Static objects of a synthetic street: buildings, walls, fences, trees, poles, lights, signs."""

from __future__ import annotations

import numpy as np

from trainer.data.synthetic.canvas import Canvas, Colour

Rng = np.random.Generator
GLASS: Colour = (48, 58, 70)


def scaled(colour: Colour, by: float) -> Colour:
    """A colour, darker or lighter."""
    return colour[0] * by, colour[1] * by, colour[2] * by


def around(rng: Rng, colour: Colour, spread: float) -> Colour:
    """A random colour near another: normal noise of `spread` per channel, and of half of it in brightness."""
    red, green, blue, all_three = rng.standard_normal(4).tolist()
    return (
        min(255.0, max(0.0, colour[0] + spread * (red + all_three / 2))),
        min(255.0, max(0.0, colour[1] + spread * (green + all_three / 2))),
        min(255.0, max(0.0, colour[2] + spread * (blue + all_three / 2))),
    )


def cloth(rng: Rng) -> Colour:
    """A random colour of clothes or car paint: mostly grey to black, else any."""
    if rng.random() < 0.6:
        return around(rng, scaled((230, 230, 235), rng.uniform(0.1, 1.0)), 8)
    red, green, blue = rng.uniform(20, 220, 3).tolist()
    return red, green, blue


def building(canvas: Canvas, rng: Rng, x: float, near: float, far: float, light: float) -> None:
    """A facade along the street at x, with its end wall and windows."""
    height = rng.uniform(5, 22)
    wall = around(rng, ((150, 130, 112), (126, 126, 128), (170, 156, 130), (120, 82, 68))[rng.integers(4)], 16)
    outward = 1 if x > 0 else -1
    canvas.quad((x, near), (x + outward * 14, near), 0, height, scaled(wall, 1.35 - light / 2), "building")
    canvas.quad((x, near), (x, far), 0, height, scaled(wall, light), "building")
    canvas.quad((x, near), (x, far), height - 0.5, height, scaled(wall, light * 0.75), None)
    glass = around(rng, scaled(GLASS, rng.uniform(0.7, 2.4)), 10)
    floor, bay = rng.uniform(2.7, 3.8), rng.uniform(2.2, 4.5)
    for y in np.arange(1.0 if rng.random() < 0.6 else 4.0, min(height - 2.2, 13), floor).tolist():
        for z in np.arange(near + 0.7, min(far - 1.2, near + 30), bay).tolist():
            canvas.quad((x, z), (x, z + bay * 0.5), y, y + floor * 0.55, glass, None)


def wall(canvas: Canvas, rng: Rng, x: float, near: float, far: float, light: float) -> None:
    """A free-standing wall along the street."""
    height = rng.uniform(1.2, 3.2)
    stone = around(rng, ((138, 128, 118), (120, 92, 80), (150, 148, 142))[rng.integers(3)], 14)
    canvas.quad((x, near), (x, far), 0, height, scaled(stone, light), "wall")
    canvas.quad((x, near), (x, far), height - 0.15, height, scaled(stone, light * 1.2), None)


def fence(canvas: Canvas, rng: Rng, x: float, near: float, far: float, light: float) -> None:
    """Posts and rails with gaps; the label is filled, as in Cityscapes."""
    height = rng.uniform(1.0, 2.2)
    metal = scaled(around(rng, ((96, 100, 98), (150, 140, 126), (70, 84, 74))[rng.integers(3)], 16), light)
    canvas.quad((x, near), (x, far), 0, height, None, "fence")
    at = canvas.camera
    for y in (0.15, height / 2, height):
        canvas.line([at(x, y, near), at(x, y, far)], 0.08, metal, None, near)
    for z in np.geomspace(near, far, 14).tolist():
        canvas.line([at(x, 0, z), at(x, height, z)], 0.1, metal, None, z)


def hedge(canvas: Canvas, rng: Rng, x: float, near: float, far: float, light: float) -> None:
    """Bushes in a row, sometimes trees above them."""
    leaf = scaled(around(rng, (72, 92, 46), 14), light)
    tall = rng.uniform(1.2, 7.0)
    for z in sorted(rng.uniform(near, far, 6).tolist(), reverse=True):
        high = tall * rng.uniform(0.6, 1.2)
        canvas.disc(x, high * 0.45, z, high * rng.uniform(0.9, 1.6), high, around(rng, leaf, 9), "vegetation")


def tree(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A trunk and a crown of a few overlapping discs."""
    height, leaf = rng.uniform(4, 10), around(rng, (70, 90, 44), 18)
    bare = rng.random() < 0.12
    canvas.facing(x, z, 0.3, 0, height * 0.5, around(rng, (74, 62, 50), 10), "vegetation")
    for _ in range(3 if bare else 7):
        y, across = height * rng.uniform(0.5, 0.9), height * rng.uniform(0.2, 0.45)
        where = x + rng.uniform(-0.22, 0.22) * height
        canvas.disc(where, y, z, across, across * 0.8, around(rng, leaf, 12), "vegetation")


def pole(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A lamp post, with or without its arm over the road."""
    height, metal = rng.uniform(3, 8), around(rng, (104, 104, 104), 26)
    at = canvas.camera
    canvas.line([at(x, 0, z), at(x, height, z)], rng.uniform(0.16, 0.36), metal, "pole", z)
    if rng.random() < 0.5:
        canvas.line([at(x, height, z), at(x - np.sign(x) * 1.6, height + 0.3, z)], 0.12, metal, "pole", z)


def traffic_light(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Three lamps, one lit, on a pole or seen from behind."""
    top, metal = rng.uniform(2.8, 5.0), around(rng, (90, 90, 90), 22)
    at = canvas.camera
    canvas.line([at(x, 0, z), at(x, top, z)], 0.14, metal, "pole", z)
    canvas.facing(x, z, 0.55, top - 0.1, top + 1.2, around(rng, (34, 36, 34), 10), "traffic light")
    if rng.random() < 0.75:
        lit = rng.integers(3)
        lamp: Colour = ((60, 225, 120), (250, 190, 40), (250, 60, 45))[lit]
        canvas.disc(x, top + 0.18 + 0.32 * int(lit), z, 0.28, 0.28, lamp, None)


def traffic_sign(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A round, square or triangular plate on a pole, in one of the colours of the road code."""
    top, across = rng.uniform(1.9, 3.2), rng.uniform(0.7, 1.3)
    at = canvas.camera
    canvas.line([at(x, 0, z), at(x, top, z)], 0.1, around(rng, (120, 120, 120), 22), "pole", z)
    rim = around(
        rng, ((200, 40, 40), (40, 80, 170), (235, 205, 50), (225, 225, 225), (120, 120, 118))[rng.integers(5)], 12
    )
    inner = around(rng, ((230, 230, 230), (60, 70, 90))[rng.integers(2)], 12)
    shape = rng.integers(3)
    if shape == 0:
        canvas.disc(x, top, z, across, across, rim, "traffic sign")
        canvas.disc(x, top, z, across * 0.6, across * 0.6, inner, None)
    elif shape == 1:
        canvas.facing(x, z, across, top - across / 2, top + across * rng.uniform(0.2, 0.7), rim, "traffic sign")
        canvas.facing(x, z, across * 0.6, top - across * 0.2, top + across * 0.1, inner, None)
    else:
        corners = [at(x - across / 2, top - 0.4, z), at(x + across / 2, top - 0.4, z), at(x, top + 0.5, z)]
        canvas.polygon(corners, rim, "traffic sign", z)


def bin_or_box(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Street furniture that Cityscapes labels `static`, an untrained class."""
    canvas.facing(x, z, rng.uniform(0.4, 1.3), 0, rng.uniform(0.7, 1.6), cloth(rng), "static")
