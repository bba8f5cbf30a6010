"""FolderOptions: which files of a user's folder are images and masks, how they are split, and what masks mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from trainer.config import Integer, Number, Strict, UserError, explain
from trainer.data.own_folder.groups import expression
from trainer.data.pairing import SPLITS, Split

MOST_CHANNELS = 64

Share = Annotated[Number, Field(gt=0, lt=1)]


class FolderOptions(Strict):
    """`images` and `masks` are a folder or glob for each split; or one, which `lists` or `holdout` divides."""

    images: str | dict[Split, str] = "images"
    masks: str | dict[Split, str] = "masks"
    classes: Any
    ignore: Any = ()
    lists: dict[Split, str] | None = None
    holdout: dict[Literal["val", "test"], Share] | None = None
    group: str | None = None
    channels: Integer = Field(3, ge=1, le=MOST_CHANNELS)
    range: tuple[Number, Number] | None = None

    @model_validator(mode="after")
    def _one_way_to_split(self) -> FolderOptions:
        by_split = {"images": self.images, "masks": self.masks, "lists": self.lists}
        if isinstance(self.images, str) != isinstance(self.masks, str):
            raise ValueError("images and masks must both be one folder, or both name one for each split")
        if isinstance(self.images, str) and (self.lists is None) == (self.holdout is None):
            raise ValueError(
                "one folder of images needs either lists: {train: FILE, val: FILE} or holdout: {val: SHARE}; or name "
                "one for each split, images: {train: FOLDER, val: FOLDER}"
            )
        if not isinstance(self.images, str) and (self.lists or self.holdout):
            raise ValueError("images are given for each split, so that lists and holdout have no place; remove them")
        for name, value in by_split.items():
            missing = [split for split in ("train", "val") if isinstance(value, dict) and split not in value]
            if missing:
                raise ValueError(f"{name} has no {' and no '.join(missing)}; runs need both")
        if isinstance(self.images, dict) and isinstance(self.masks, dict) and set(self.images) != set(self.masks):
            raise ValueError(f"images have the splits {', '.join(self.images)} but masks {', '.join(self.masks)}")
        if self.holdout is not None and ("val" not in self.holdout or sum(self.holdout.values()) >= 1):
            raise ValueError("holdout needs a share for val, and leaves the rest below 1 for train")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range is [LOW, HIGH], but got [{self.range[0]:g}, {self.range[1]:g}]")
        return self

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that the options name."""
        named = self.lists or (self.images if isinstance(self.images, dict) else None)
        found = set(named) if named is not None else {"train", *(self.holdout or {})}
        return tuple(split for split in SPLITS if split in found)


def folder_options(options: Mapping[str, Any]) -> FolderOptions:
    """The options of a data section. Raises UserError naming the option, the rule and the value."""
    try:
        found = FolderOptions.model_validate(dict(options))
    except ValidationError as error:
        whole = str(explain(error, "data.options"))
        raise UserError(whole.replace("data.options: the whole file: ", "data.options: ")) from None
    if found.group is not None:
        expression(found.group)
    return found
