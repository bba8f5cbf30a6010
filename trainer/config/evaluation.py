"""EvalConfig: how a student is validated, and how its predictions are made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config.data import check_sides
from trainer.config.fields import LARGEST_SIDE, Count, Integer, Number, Strict

Side = Annotated[Integer, Field(ge=1, le=LARGEST_SIDE)]


class EvalConfig(Strict):
    """Validation. The first protocol is logged as `val/miou`, others as `val/<protocol>/miou`.

    `inference` is `whole`, one pass over the image, or `slide`: a `window` (height, width) is moved by `stride` pixels
    (down, across), and the logits of windows that overlap are averaged. With `flip` the mirrored image is predicted
    too, and with `scales` the image at several times its size; the class probabilities of all are averaged.

    With `splits: [val, test]` the student of the last epoch is evaluated on test too, `test/miou`; nothing is selected
    by it.
    """

    protocols: tuple[Literal["full", "paper"], ...] = ("full",)
    every: Count = Field(1, description="epochs between validations; the last epoch is always validated")
    splits: tuple[Literal["val", "test"], ...] = ("val",)
    inference: Literal["whole", "slide"] = "whole"
    window: tuple[Side, Side] | None = None
    stride: tuple[Side, Side] | None = None
    flip: bool = False
    scales: tuple[Annotated[Number, Field(ge=0.1, le=8)], ...] = (1.0,)

    @property
    def predictions(self) -> str:
        """How predictions are made, for printing; "" for one pass over the image."""
        words = []
        if self.window is not None and self.stride is not None:
            words.append(f"windows of {_by(self.window)} every {_by(self.stride)}")
        words += ["mirrored images too"] if self.flip else []
        words += [f"scales {', '.join(f'{scale:g}' for scale in self.scales)}"] if self.scales != (1.0,) else []
        return "; ".join(words)

    @model_validator(mode="after")
    def _at_least_one(self) -> EvalConfig:
        if not self.protocols or len(set(self.protocols)) != len(self.protocols):
            raise ValueError("protocols must name each of full, paper at most once, and at least one")
        if not self.scales or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales must be one or more different numbers, but got {list(self.scales)}")
        return self

    @model_validator(mode="after")
    def _selected_by_val(self) -> EvalConfig:
        if self.splits not in (("val",), ("val", "test")):
            raise ValueError(
                f"splits must be [val] or [val, test], as runs are selected by val, but got {list(self.splits)}"
            )
        return self

    @model_validator(mode="after")
    def _windows_leave_no_gap(self) -> EvalConfig:
        given = {"window": self.window, "stride": self.stride}
        if self.inference == "whole":
            if named := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{named[0]} only applies with inference: slide; set it, or remove {named[0]}")
            return self
        if self.window is None or self.stride is None:
            lacking = "window" if self.window is None else "stride"
            raise ValueError(f"inference: slide needs {lacking}: [height, width] in pixels, but it is missing")
        check_sides(self.window, "window's ")
        for side, window, stride in zip(("height", "width"), self.window, self.stride, strict=True):
            if not 4 <= stride <= window or stride % 4:
                raise ValueError(
                    f"stride must be a multiple of 4 from 4 to the window's {side}, {window}, as windows may leave no "
                    f"gap, but got {stride}"
                )
        return self


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
