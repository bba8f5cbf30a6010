"""Canvas: an image and its label, painted together from far to near through one pinhole camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from trainer.data.cityscapes import LABEL_IDS

# Cityscapes' label ids, with those of untrained classes that occur in the scenes.
IDS = LABEL_IDS | {"ego vehicle": 1, "rectification border": 2, "static": 4}

Colour = tuple[float, float, float]
Point = tuple[float, float]


class Camera(NamedTuple):
    """A pinhole camera that looks along the street. World: x to the right, y up, z ahead, in metres."""

    focal: float  # pixels
    centre: float  # pixels from the left
    horizon: float  # pixels from the top
    height: float
    bend: float  # the street's curvature, 1/m: x shifts by bend * z**2

    def __call__(self, x: float, y: float, z: float) -> Point:
        """The pixel (u, v) of a point in the world."""
        return self.centre + self.focal * (x / z + self.bend * z), self.horizon + self.focal * (self.height - y) / z


class Canvas:
    """An image and its label: painting covers what is there, in the image and, for things with a label, in the label.

    Colours fade into haze with depth z.
    """

    def __init__(self, size: tuple[int, int], camera: Camera, haze: Colour, sight: float) -> None:
        """`size` is (H, W) in pixels; `sight` is the depth in metres at which 63 % of a colour is haze."""
        self.height, self.width = size
        self.camera = camera
        self.haze, self.sight = haze, sight
        self.image = Image.new("RGB", (self.width, self.height))
        self.label = Image.new("L", (self.width, self.height))
        self.shade = Image.new("L", (self.width, self.height), 255)  # 255 lit, less in a shadow on the ground
        self._paint, self._mark = ImageDraw.Draw(self.image), ImageDraw.Draw(self.label)
        self._shadow = ImageDraw.Draw(self.shade)

    def tone(self, colour: Colour, z: float) -> tuple[int, int, int]:
        """A colour mixed with haze for depth z."""
        kept = math.exp(-z / self.sight)
        lost = 1 - kept
        (red, green, blue), haze = colour, self.haze
        return (
            min(255, int(red * kept + haze[0] * lost)),
            min(255, int(green * kept + haze[1] * lost)),
            min(255, int(blue * kept + haze[2] * lost)),
        )

    def pixels(self, metres: float, z: float) -> float:
        """The pixels of a length in metres at depth z."""
        return self.camera.focal * metres / z

    def polygon(self, points: Sequence[Point], colour: Colour | None, label: str | None, z: float) -> None:
        """Fill image points; `colour` None leaves the image unchanged, `label` None the label."""
        if colour:
            self._paint.polygon(points, fill=self.tone(colour, z))
        if label:
            self._mark.polygon(points, fill=IDS[label])

    def quad(
        self, near: tuple[float, float], far: tuple[float, float], low: float, high: float,
        colour: Colour | None, label: str | None,
    ) -> None:  # fmt: skip
        """An upright rectangle between the ground points (x, z) `near` and `far`, from height `low` to `high`."""
        (xa, za), (xb, zb) = near, far
        at = self.camera
        points = [at(xa, low, za), at(xa, high, za), at(xb, high, zb), at(xb, low, zb)]
        self.polygon(points, colour, label, (za + zb) / 2)

    def facing(
        self, x: float, z: float, width: float, low: float, high: float, colour: Colour, label: str | None
    ) -> None:
        """An upright rectangle that faces the camera, centred on x."""
        self.quad((x - width / 2, z), (x + width / 2, z), low, high, colour, label)

    def disc(
        self, x: float, y: float, z: float, width: float, height: float, colour: Colour, label: str | None
    ) -> None:
        """An ellipse that faces the camera, `width` by `height` metres around (x, y)."""
        (u, v), a, b = self.camera(x, y, z), self.pixels(width, z) / 2, self.pixels(height, z) / 2
        box = (u - a, v - b, u + a, v + b)
        self._paint.ellipse(box, fill=self.tone(colour, z))
        if label:
            self._mark.ellipse(box, fill=IDS[label])

    def ring(self, x: float, y: float, z: float, width: float, height: float, colour: Colour, label: str) -> None:
        """The outline of an ellipse; its label is filled, as by the annotators of Cityscapes."""
        (u, v), a, b = self.camera(x, y, z), self.pixels(width, z) / 2, self.pixels(height, z) / 2
        box = (u - a, v - b, u + a, v + b)
        self._paint.ellipse(box, outline=self.tone(colour, z), width=max(1, round(self.pixels(0.08, z))))
        self._mark.ellipse(box, fill=IDS[label])

    def line(self, points: Sequence[Point], thickness: float, colour: Colour, label: str | None, z: float) -> None:
        """A line through image points, `thickness` metres wide and at least one pixel."""
        width = max(1, round(self.pixels(thickness, z)))
        self._paint.line(points, fill=self.tone(colour, z), width=width)
        if label:
            self._mark.line(points, fill=IDS[label], width=width)

    def strip(self, left: float, right: float, near: float, far: float) -> list[Point]:
        """The image points of a piece of ground between two lines along the street, following its bend."""
        at = self.camera
        depths = [near * (far / near) ** (i / 8) for i in range(9)]
        return [at(left, 0, z) for z in depths] + [at(right, 0, z) for z in reversed(depths)]

    def ground(self, left: float, right: float, near: float, far: float, colour: Colour, label: str | None) -> None:
        """Paint a piece of ground, with the haze of half its (geometric) mean depth."""
        self.polygon(self.strip(left, right, near, far), colour, label, math.sqrt(near * far) / 2)

    def cast_shadow(self, left: float, right: float, near: float, far: float, lit: int) -> None:
        """Darken a piece of ground to `lit` / 255; objects on it are not darkened."""
        self._shadow.polygon(self.strip(left, right, near, far), fill=lit)
