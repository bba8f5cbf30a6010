"""What every entry of DISTILLERS promises, whatever it computes; and what build_distillers refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainer.config import Term, UserError
from trainer.contract.distillers import CHECKS, STUDENT, WIDER, Path
from trainer.distill import ALTERNATIVES, DISTILLERS, build_distillers
from trainer.distill.base import Distiller
from trainer.distill.losses import hierarchical_context
from trainer.models.base import Channels
from trainer.models.norm import set_norm_batch

# every entry with its defaults, and the options that choose other parameters or another path through them
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in DISTILLERS),
    ("csf", {"norm": "reference"}),
    ("csf", {"stage_weights": [0, 1, 0, 0.5], "width": 8}),
    ("csf", {"distance": "mse"}),
    ("csf", {"distance": "cwd", "temperature": 2}),
    ("csf", {"distance": "kl"}),
    ("review", {"stage_weights": [0, 1, 0, 0.5], "width": 8}),
    ("kd", {"temperature": 4}),
    ("cwd", {"distance": "mse", "temperature": 1}),
    ("cwd_features", {"stages": [1, 3], "distance": "mse"}),
    ("dist", {"beta": 0.5, "temperature": 4}),
    ("dist", {"gamma": 0}),
    ("pea", {"stage_weights": [0, 1, 0, 0]}),
    ("pea", {"distance": "cwd", "temperature": 4}),
    ("pea", {"distance": "kl"}),
    ("pea", {"distance": "channel_mse"}),
    ("pea", {"distance": "token_mse"}),
    ("pea_gl", {"residual": True, "heads": 2, "stage_weights": [0, 0.5, 0, 1]}),
    ("pea_gl", {"stage": 1, "heads": 4, "stage_weights": [1, 0, 0, 0]}),
    ("pea_ea", {"stage_weights": [0, 1, 0, 1]}),
    ("pea_ea", {"assisted": [3, 1], "distance": "kl"}),
    ("fitnet", {"stages": [1, 4]}),
    ("at", {"stages": [3], "power": 1.5}),
    ("skd", {"stage": 2, "scale": 0.3}),
    ("skd", {"stage": 1, "patch": 2}),
    ("ifvd", {"stage": 1}),
    ("cirkd", {"stage": 2, "pool": 2, "temperature": 1.0}),
]
every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else str(v))


def build(name: str, options: dict[str, Any], teacher: Channels = WIDER, seed: int = 0) -> Distiller:
    return Path(name, options).build(teacher, seed)


@every_case
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_every_path_keeps_the_contract(check: Callable[[Path], None], name: str, options: dict[str, Any]) -> None:
    check(Path(name, options))


@pytest.mark.parametrize("name", DISTILLERS)
def test_initialisation_depends_on_seed_and_name_alone(name: str) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    alone = build(name, {})
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    others = [other for other in DISTILLERS if other != name and not {other, name} <= set(ALTERNATIVES)]
    chosen = [o for o in others if o not in ALTERNATIVES] + [o for o in others if o in ALTERNATIVES][:1]
    among = build_distillers({key: Term() for key in (*chosen, name)}, STUDENT, WIDER, 0)[name]
    assert list(alone.state_dict()) == list(among.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), among.parameters(), strict=True))


def test_each_name_and_seed_draws_from_its_own_stream() -> None:
    draws = [
        build(name, {}, seed=seed).state_dict()["projections.0.weight"] for name in ALTERNATIVES for seed in (0, 1)
    ]
    for i, first in enumerate(draws):
        assert not any(torch.equal(first, other) for other in draws[i + 1 :])


def test_a_path_of_weight_0_is_not_built() -> None:
    terms = {"csf": Term(weight=0.0, options={"width": -1}), "pea": Term(weight=0.5), "pea_gl": Term(weight=0.0)}
    assert list(build_distillers(terms, STUDENT, WIDER, 0)) == ["pea"]


def test_stages_of_weight_0_cost_no_parameters() -> None:
    shallow = build("csf", {"stage_weights": [1, 0, 0, 0]})
    deep = build("csf", {"stage_weights": [0, 0, 0, 1]})
    count = {path: sum(p.numel() for p in path.parameters()) for path in (shallow, deep)}
    width, teacher, student = 64, WIDER.features[-1], STUDENT.features[-1]
    assert count[deep] == student * width + 2 * width + 9 * width * teacher + 2 * teacher
    assert len(list(shallow.modules())) > len(list(deep.modules()))
    assert sum(p.numel() for p in build("pea", {"stage_weights": [0, 0, 0, 1]}).parameters()) == 32 * 40 + 40


def test_the_reference_squeeze_freezes_what_its_groups_never_use() -> None:
    path = build("csf", {"norm": "reference"})
    for norm_batch in (1, 2, 1):
        set_norm_batch(path, norm_batch)
        frozen = {name.split("squeeze.")[1].split(".")[0] for name, p in path.named_parameters() if not p.requires_grad}
        assert frozen == ({"grouped", "norm"} if norm_batch == 1 else {"single"})


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 2, 5, 7), (1, 2, 3, 9), (2, 1, 1, 1), (1, 2, 8, 2), (1, 2, 6, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_hierarchical_context(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    student = student.contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(hierarchical_context, (student, teacher))
    assert hierarchical_context(student, student.detach()).item() == 0


@pytest.mark.parametrize("height", [4, 5, 6, 8, 12, 16, 18])
@pytest.mark.parametrize("width", [2, 7, 12, 16])
def test_hierarchical_context_pools_as_if_from_the_full_map(height: int, width: int) -> None:
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((2, 3, height, width), generator=rng, dtype=torch.float64) for _ in range(2))
    terms = [nn.functional.mse_loss(student, teacher)]
    for level in (side for side in (4, 2, 1) if side < height):
        pool = nn.AdaptiveAvgPool2d(level)
        terms.append(nn.functional.mse_loss(pool(student), pool(teacher)))
    weights = [0.5**k for k in range(len(terms))]
    expected = sum(w * t.item() for w, t in zip(weights, terms, strict=True)) / sum(weights)
    assert hierarchical_context(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pae", {}, "unknown distiller 'pae'; did you mean 'pea'"),
        ("pea", {"stage_weight": 1}, "distill.pea: unknown option 'stage_weight'; did you mean 'stage_weights'"),
        ("pea", {"student": 1}, "distill.pea: unknown option 'student'"),
        ("pea", {"stage_weights": [1, 1]}, "distill.pea: stage_weights must be a list of 4 finite numbers but got"),
        ("pea", {"stage_weights": "0.1,0.1,0.5,1"}, "stage_weights must be a list of 4 finite numbers but got '0.1"),
        ("pea", {"stage_weights": [1, 1, 1, "much"]}, "stage_weights must be a list of 4 finite numbers"),
        ("pea", {"stage_weights": [1, 1, 1, True]}, "stage_weights must be a list of 4 finite numbers"),
        ("pea", {"stage_weights": [1, 1, 1, -1]}, "stage_weights must be at least 0 and one of them above 0"),
        ("csf", {"stage_weights": [0, 0, 0, 0]}, "distill.csf: stage_weights must be at least 0 and one of them"),
        ("csf", {"norm": "batch"}, "distill.csf: norm must be one of layer, reference but got 'batch'"),
        ("csf", {"norm": ["layer"]}, "norm must be one of layer, reference but got"),
        ("csf", {"distance": "l1"}, "distill.csf: distance must be one of hcl, mse, cwd, kl but got 'l1'"),
        ("csf", {"temperature": 2}, "distance hcl has no temperature but got 2; remove it or choose cwd or kl"),
        ("csf", {"distance": "kl", "temperature": 0}, "temperature must be a finite number above 0 but got 0"),
        ("review", {"width": 0}, "distill.review: width must be a whole number of at least 1 but got 0"),
        ("kd", {"temperature": -1.0}, "distill.kd: temperature must be a finite number above 0 but got -1.0"),
        ("cwd", {"temperature": "4"}, "distill.cwd: temperature must be a finite number above 0 but got '4'"),
        ("cwd", {"distance": ["kl"]}, "distill.cwd: distance must be one of kl, mse but got"),
        ("cwd_features", {"stages": [5]}, "each of stages must be a stage, 1 \\(shallowest\\) to 4, but got 5"),
        ("dist", {"beta": -1}, "beta and gamma must be at least 0 and one of them above 0 but got -1.0 and 1.0"),
        ("dist", {"beta": 0, "gamma": 0}, "distill.dist: beta and gamma must be at least 0 and one of them above 0"),
        ("csf", {"width": 0}, "distill.csf: width must be a whole number of at least 1 but got 0"),
        ("csf", {"width": 6.5}, "width must be a whole number of at least 1 but got 6.5"),
        ("pea_gl", {"heads": 5}, "heads must divide the width of the mixed embedding \\(32\\) but got 5"),
        ("pea_gl", {"heads": 0}, "heads must be a whole number of at least 1 but got 0"),
        ("pea_gl", {"residual": 1}, "residual must be true or false but got 1"),
        ("pea_gl", {"attention_scale": "a"}, "attention_scale must be a finite number but got 'a'"),
        (
            "pea_gl",
            {"stage_weights": [1, 1, 1, 0]},
            "weights must be above 0 at the mixed stage \\(4\\) but got .*`pea`",
        ),
        ("pea_gl", {"stage": 0}, "distill.pea_gl: stage must be a stage, 1 \\(shallowest\\) to 4, but got 0"),
        ("pea_gl", {"stage": 2, "stage_weights": [1, 0, 1, 1]}, "must be above 0 at the mixed stage \\(2\\) but got"),
        ("pea", {"distance": "l1"}, "distance must be one of mse, cwd, kl, channel_mse, token_mse but got 'l1'"),
        ("pea", {"temperature": 4}, "distance mse has no temperature but got 4; remove it or choose cwd or kl"),
        ("pea_ea", {"distance": "kl", "temperature": 0}, "temperature must be a finite number above 0 but got 0"),
        ("pea_ea", {"assisted": 4}, "assisted must be a list of stages, 1 \\(shallowest\\) to 4, but got 4"),
        ("pea_ea", {"assisted": []}, "assisted must be a list of stages, 1 \\(shallowest\\) to 4, but got \\[\\]"),
        ("pea_ea", {"assisted": [1, 1]}, "assisted must name each stage at most once but got \\[1, 1\\]"),
        ("pea_ea", {"assisted": [1], "stage_weights": [0, 1, 1, 1]}, "assisted must name a stage of weight above 0"),
        ("fitnet", {"stages": [1.0]}, "distill.fitnet: each of stages must be a stage, 1 \\(shallowest\\) to 4"),
        ("fitnet", {"stages": [True]}, "each of stages must be a stage, 1 \\(shallowest\\) to 4, but got True"),
        ("at", {"power": 0.5}, "distill.at: power must be at least 1 but got 0.5"),
        ("at", {"power": "2"}, "power must be a finite number above 0 but got '2'"),
        ("skd", {"scale": 1}, "distill.skd: scale must be below 1 but got 1: one patch"),
        ("skd", {"scale": 0}, "scale must be a finite number above 0 but got 0"),
        ("skd", {"patch": 0}, "distill.skd: patch must be a whole number of at least 1 but got 0"),
        ("skd", {"scale": 0.5, "patch": 2}, "scale and patch exclude each other but got 0.5 and 2; remove one"),
        ("ifvd", {"stage": 5}, "distill.ifvd: stage must be a stage, 1 \\(shallowest\\) to 4, but got 5"),
        ("cirkd", {"temperature": -1}, "distill.cirkd: temperature must be a finite number above 0 but got -1"),
        ("cirkd", {"pool": 0}, "distill.cirkd: pool must be a whole number of at least 1 but got 0"),
        ("pea_ea", {"assistant_scales": [1]}, "distill.pea_ea: assistant_scales must be a list of 4 finite numbers"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        build(name, options)
    assert "\n" not in str(raised.value)


def test_alternatives_are_refused_together() -> None:
    with pytest.raises(UserError, match="pea and pea_ea are alternatives"):
        build_distillers({"pea_ea": Term(), "csf": Term(), "pea": Term()}, STUDENT, WIDER, 0)


@pytest.mark.parametrize(
    "name", ["csf", "review", "cwd_features", "pea", "pea_gl", "pea_ea", "fitnet", "at", "skd", "ifvd", "cirkd"]
)
def test_unequal_strides_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="must have equal strides but got"):
        build(name, {}, WIDER._replace(strides=(8, 16, 32, 64)))


def test_embedding_assistant_needs_whole_steps() -> None:
    odd = (4, 6, 12, 24)
    with pytest.raises(UserError, match="strides must be multiples of one another but got 4 and 6"):
        build_distillers({"pea_ea": Term()}, STUDENT._replace(strides=odd), WIDER._replace(strides=odd), 0)
