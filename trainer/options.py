"""check_options: check the options of a YAML section against the signature of the function that receives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from trainer.config import UserError, unknown


def check_options(
    where: str, factory: Callable[..., Any], options: Mapping[str, Any], skip: Collection[str] = ()
) -> None:
    """Raise UserError unless `factory(<skip>, **options)` fits its signature: `distill.pea: unknown option ...`.

    `where` is the section's name in the message; `skip` are the parameters that the caller passes itself.
    """
    open_to_user = {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in skip and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for name in options:
        if name not in open_to_user:
            raise UserError(f"{where}: {unknown('option', str(name), open_to_user)}")
    for name, parameter in open_to_user.items():
        if parameter.default is parameter.empty and name not in options:
            raise UserError(f"{where}: the option '{name}' has no default; give it under options")
