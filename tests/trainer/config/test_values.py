"""Values in configs: what is nearly right is refused in words, and what is right keeps its key."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config import UserError, parse, recipe_names, refuse_secrets, teacher_run


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"optim": {"epochs": "3"}}, "optim.epochs: a number is expected, not the text '3'; remove the quotes"),
        ({"optim": {"epochs": True}}, "optim.epochs: a number is expected, not true"),
        ({"optim": {"lr": True}}, "optim.lr: a number is expected, not true"),
        ({"optim": {"lr": "1e-5"}}, "optim.lr: YAML reads '1e-5' as text, not as a number; write 1.0e-5"),
        ({"optim": {"norm_batch": "2"}}, "optim.norm_batch: a number is expected, not the text '2'"),
        ({"data": {"size": ["64", 128]}}, "data.size.0: a number is expected, not the text '64'"),
        ({"seed": False}, "seed: a number is expected, not false"),
        ({"distill": {"csf": None}}, "distill.csf: nothing is written under it; write {} for its defaults, or leave"),
        ({"distill": None}, "distill: nothing is written under it; write {}"),
        ({"optim": None}, "optim: nothing is written under it; write {}"),
        ({"distill": {"csf": 0.5}}, "distill.csf: keys and values are expected, for example {}, but got 0.5"),
        ({"student": "segformer_b0"}, "student: keys and values are expected, for example {}, but got 'segformer_b0'"),
        ({"student": {"partial": True}}, "student: partial needs a checkpoint, but init is scratch; set init to a"),
        ({"data": {"class_weights": [0, 1]}}, "data.class_weights.0: Input should be greater than 0, but got 0"),
        (
            {"data": {"class_weights": "balanced"}},
            "data.class_weights: Input should be 'auto', or a list is expected, for example [0, 1], but got 'balanced'",
        ),
        (
            {"data": {"augment": "standart"}},
            "data.augment: Input should be 'standard', 'reference' or 'none', or a list is expected, for example [0, "
            "1], but got 'standart'; did you mean 'standard'?",
        ),
        (
            {"data": {"normalize": "imagnet"}},
            "data.normalize: Input should be 'unit' or 'imagenet', or keys and values are expected, for example {}, "
            "but got 'imagnet'; did you mean 'imagenet'?",
        ),
        ({"optim": {"lr": 1e300}}, "optim.lr: Input should be less than or equal to 3.4e+38, but got 1e+300"),
        (
            {"teacher": {"normalize": "unit", "train": {}}},
            "teacher: normalize is for a checkpoint; a teacher trained by recipe uses data.normalize; remove it",
        ),
    ],
)
def test_what_is_nearly_right_is_refused_in_words(data: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(data)
    assert str(error.value).startswith(f"config: {message}")


def test_what_yaml_writes_otherwise_is_taken() -> None:
    config = parse(
        {"optim": {"lr": 1, "epochs": 3.0, "norm_batch": None}, "data": {"size": [64, 128]}, "teacher": None}
    )
    assert (config.optim.lr, config.optim.epochs, config.data.size) == (1.0, 3, (64, 128))
    assert parse(config.model_dump(mode="json")) == config


def test_fields_that_are_younger_than_ledgers_leave_old_keys_alone() -> None:
    """Keys of the first release: whoever adds a field to a config lists it, or every finished run is run again."""
    taught = {"teacher": {"checkpoint": "b2.pth", "miou": 76.49}, "distill": {"csf": {}, "pea": {}}, "seed": 3}
    assert parse({}).key == "8165d9a9a1c3"
    assert parse(taught).key == "080261b17ed6"
    assert parse({"teacher": {"train": {"epochs": 2}}}).key == "5cd1c53ced8b"
    started = {**taught, "student": {"init": "b0.pth"}}
    partial = {**taught, "student": {"init": "b0.pth", "partial": True}}
    scaled = {**taught, "teacher": {"checkpoint": "b2.pth", "miou": 76.49, "normalize": "unit"}}
    assert len({parse(data).key for data in (taught, started, partial, scaled)}) == 4


def test_a_teachers_own_run_starts_from_what_its_recipe_says() -> None:
    started = teacher_run(parse({"student": {"init": "w.pth"}, "teacher": {"train": {"init": "mit_b2.pth"}}}))
    assert started is not None
    assert started.student.init == "mit_b2.pth"
    config = parse({"student": {"init": "w.pth", "partial": True}, "teacher": {"train": {"epochs": 2}}})
    trained = teacher_run(config)
    assert trained is not None
    assert trained.student.init == "scratch"
    assert trained.key == teacher_run(parse({"teacher": {"train": {"epochs": 2}}})).key


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"data": {"options": {"token": "hunter2"}}}, "data.options.token must hold no password or token"),
        (
            {"data": {"options": {"from": "http://u:hunter2@h/x"}}},
            r"data.options.from must hold .* got http://\*\*\*@h/x;",
        ),
        ({"data": {"augment": [{"mine": {"sources": ["", "https://t0ken@h"]}}]}}, "data.augment.0.mine.sources.1 must"),
        ({"student": {"init": "key-of-mine"}}, r"student.init must hold .*, but got \*\*\*; let the code"),
    ],
)
def test_a_config_that_holds_a_password_is_refused(
    data: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "key-of-mine")
    with pytest.raises(UserError, match=message) as refused:
        refuse_secrets(data)
    assert "hunter2" not in str(refused.value)


def test_no_packaged_config_seems_to_hold_a_password() -> None:
    for name in recipe_names():
        refuse_secrets(parse({"recipe": name}).model_dump(mode="json"))
