"""Hypothesis draws the same examples on every run; `pytest --hypothesis-profile=deep` draws more, and new ones."""

from hypothesis import HealthCheck, Phase, settings

ALWAYS = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", derandomize=True, max_examples=25, stateful_step_count=30, **ALWAYS)
settings.register_profile("deep", max_examples=2000, stateful_step_count=60, print_blob=True, **ALWAYS)
# A mutant is to be noticed, and nobody reads its smallest example.
settings.register_profile(
    "mutation", settings.get_profile("fast"), max_examples=12, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("fast")
