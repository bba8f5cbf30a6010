"""DISTILLERS: name -> class. To add a knowledge path, write one file and add one line here."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import Term, UserError, unknown
from trainer.distill.at import AttentionTransfer
from trainer.distill.base import Distiller
from trainer.distill.cirkd import CrossImageRelations
from trainer.distill.csf import CrossSelectiveFusion
from trainer.distill.cwd import ChannelWiseDistillation, ChannelWiseFeatureDistillation
from trainer.distill.dist import CorrelationDistillation
from trainer.distill.fitnet import FitNetHints
from trainer.distill.ifvd import IntraClassVariation
from trainer.distill.kd import ResponseDistillation
from trainer.distill.pea import PatchEmbeddingAlignment
from trainer.distill.pea_ea import EmbeddingAssistant
from trainer.distill.pea_gl import GlobalLocalAlignment
from trainer.distill.review import KnowledgeReview
from trainer.distill.skd import PairwiseSimilarity
from trainer.models.base import Channels
from trainer.options import check_options
from trainer.rng import initialising

DISTILLERS: dict[str, type[Distiller]] = {
    "csf": CrossSelectiveFusion,
    "pea": PatchEmbeddingAlignment,
    "pea_gl": GlobalLocalAlignment,
    "pea_ea": EmbeddingAssistant,
    "kd": ResponseDistillation,
    "cwd": ChannelWiseDistillation,
    "cwd_features": ChannelWiseFeatureDistillation,
    "review": KnowledgeReview,
    "dist": CorrelationDistillation,
    "fitnet": FitNetHints,
    "at": AttentionTransfer,
    "skd": PairwiseSimilarity,
    "ifvd": IntraClassVariation,
    "cirkd": CrossImageRelations,
}

ALTERNATIVES = ("pea", "pea_gl", "pea_ea")
"""Alternative losses on the patch embeddings, of which a run has at most one."""


def build_distillers(
    terms: Mapping[str, Term], student: Channels, teacher: Channels, seed: int
) -> dict[str, Distiller]:
    """The paths with a weight above 0, in the order given. Each is initialised by seed and name only.

    Raises UserError with the path's place in the config for an unknown name, two alternatives, or bad options.
    """
    for name in terms:
        if name not in DISTILLERS:
            raise unknown("distiller", name, DISTILLERS)
    active = {name: term for name, term in terms.items() if term.weight > 0}
    chosen = [name for name in ALTERNATIVES if name in active]
    if len(chosen) > 1:
        raise UserError(
            f"distill: {' and '.join(chosen)} are alternatives and at most one may have a weight above 0; "
            f"drop {' or '.join(chosen)}"
        )
    return {name: _build(name, term, student, teacher, seed) for name, term in active.items()}


def _build(name: str, term: Term, student: Channels, teacher: Channels, seed: int) -> Distiller:
    where, factory = f"distill.{name}", DISTILLERS[name]
    check_options(where, factory, term.options, skip=("student", "teacher"))
    for who, network in (("student", student), ("teacher", teacher)):
        if "embeds" in factory.needs and not network.embeds:
            raise UserError(
                f"{where}: it reads patch embeddings, which the {who} does not have; choose another {who}, or a path "
                "on logits or features"
            )
    try:
        with initialising(seed, "distill", name):
            return factory(student, teacher, **term.options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
