"""A study with published numbers, and its recipe."""

from __future__ import annotations

ARMS = """
variants: {alone: {distill: {}}, Base: {}}
seeds: 4
"""
RECIPE = {
    "student.init": "scratch",
    "data.name": "scenes",
    "data.size": "[96, 192]",
    "optim.epochs": "9",
    "teacher.name": "segformer_mini",
    "distill": "{csf: {}, pea: {options: {stage_weights: [0.1, 0.1, 0.5, 1.0]}}}",
}
WHOLE = ", options: {whole: true}"


def published(recipe=RECIPE, more="", protocol="full") -> str:
    paths = ", ".join(f"{path}: {value}" for path, value in recipe.items())
    return (
        f"published:\n  source: a paper\n  protocol: {protocol}\n  recipe: {{{paths}}}\n"
        f"  recipes: {{teacher: {{optim.epochs: 3}}, alone: {{distill: {{}}}}}}\n"
        f"  teacher: 70.0\n  alone: 50.0\n  Base: 60.0\n{more}"
    )
