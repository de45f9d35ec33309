"""Every rule between keys: what it reports, at which key, and the neighboring recipe that it lets pass."""

from typing import Any

import pytest

from vitcli.errors import RecipeError
from vitcli.recipe import check
from vitcli.recipe.load import load_recipe

#: values, the key that is named, part of the message, part of the help, the change that makes them legal
PROBLEMS: list[tuple[dict[str, Any], str, str, str | None, dict[str, Any]]] = [
    ({"scale": (0.9, 0.1)}, "scale", "a range from low to high, not [0.9, 0.1]", "[0.1, 0.9]", {"scale": (0.1, 0.9)}),
    ({"ratio": (2.0, 1.5)}, "ratio", "a range from low to high", "[1.5, 2]", {"ratio": (1.5, 2.0)}),
    ({"re_scale": (0.3, 0.2)}, "re_scale", "a range from low to high", "[0.2, 0.3]", {"re_scale": (0.3, 0.3)}),
    ({"re_ratio": (3.0, 0.3)}, "re_ratio", "a range from low to high", "[0.3, 3]", {"re_ratio": (0.3, 3.0)}),
    ({"scale": (0.5, 1.1)}, "scale", "cannot be above 1", None, {"scale": (0.5, 1.0)}),
    ({"re_scale": (0.5, 1.1)}, "re_scale", "cannot be above 1", None, {"re_scale": (0.5, 1.0)}),
    ({"mean": (0.5, 0.5)}, "mean", "has 2 values, but in_channels is 3", "1 or 3 values", {"mean": (0.5,)}),
    ({"std": (0.2,) * 3, "mean": (0.5,), "in_channels": 1}, "std", "has 3 values", "give 1 value", {"std": (0.2,)}),
    ({"auto_augment": "rand-z"}, "auto_augment", "unknown part 'z'", "rand-m9", {"auto_augment": "rand-m9"}),
    ({"color_jitter": (0.4, 0.4)}, "color_jitter", "cannot be [0.4, 0.4]", "three", {"color_jitter": (0.4,) * 3}),
    ({"color_jitter": -0.1}, "color_jitter", "cannot be [-0.1", "one number", {"color_jitter": 0.0}),
    ({"color_jitter": (0, 0, 0, 0.6)}, "color_jitter", "0.6]", "at most 0.5", {"color_jitter": (0, 0, 0, 0.5)}),
    ({"pretrained": True}, "pretrained", "not downloaded", "with ckpt_path", {"pretrained": False}),
    ({"reg_tokens": 4}, "reg_tokens", "fastvit_t8 has no", "remove `reg_tokens`", {"model": "vit_s_patch16"}),
    ({"model": "fvit", "qkv_bias": True}, "qkv_bias", "fvit has no", "it has embed_dim, ", {"model": "vit_s_patch16"}),
    ({"warmup_epochs": 90}, "warmup_epochs", "90 epochs of warm-up and cool-down", "lower", {"warmup_epochs": 89}),
    ({"warmup_epochs": 1, "cooldown_epochs": 89}, "warmup_epochs", "90 epochs", "lower", {"cooldown_epochs": 88}),
    ({"min_lr": 0.2, "lr": 0.1}, "min_lr", "min_lr 0.2 is above lr 0.1", "raise lr", {"min_lr": 0.1}),
    (
        {"multi_step_decay_milestones": (30, 20)}, "multi_step_decay_milestones", "in increasing order", "[20, 30]",
        {"multi_step_decay_milestones": (20, 30)},
    ),
    ({"freeze": ("norm", "(")}, "freeze", "'(' is not a regular expression: missing )", "stem", {"freeze": ("norm",)}),
    ({"blur_sigma": (2.0, 0.1), "blur_prob": 1.0}, "blur_sigma", "a range", "[0.1, 2]", {"blur_sigma": (0.1, 2.0)}),
    (
        {"num_samples": 5, "num_samples_ratio": 0.1}, "num_samples_ratio", "both choose a part", "one of them",
        {"num_samples": None},
    ),
    ({"task": "byol", "mixup": 0.8}, "mixup", "does not work with `mixup: 0.8`", "set it to 0", {"mixup": 0.0}),
    ({"task": "byol", "cutmix": 1.0}, "cutmix", "does not work with", "set it to 0", {"task": "classification"}),
    ({"task": "byol", "quantize": "int8_qat"}, "quantize", "does not work with", "in float", {"quantize": "none"}),
    (
        {"task": "byol", "drop_remainder": False}, "drop_remainder", "does not work with", "set it to true",
        {"drop_remainder": True},
    ),
    ({"quantize": "int8_qat", "amp": "bf16"}, "amp", "amp bf16 would round", "set `amp: off`", {"amp": "off"}),
    ({"quantize": "int8_qat", "amp": "fp16"}, "amp", "amp fp16 would round", "set `amp: off`", {"quantize": "none"}),
    (
        {"ckpt_save_policy": "top_k", "val_while_train": False}, "ckpt_save_policy", "nothing is evaluated", "latest_k",
        {"val_while_train": True},
    ),
    ({"resume": "auto"}, "resume", "searches run_dir, which is not given", "--run_dir DIR", {"run_dir": "there"}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "key", "message", "help", "cure"), PROBLEMS, ids=[f"{row[0]}" for row in PROBLEMS])
def test_problem(values: dict[str, Any], key: str, message: str, help: str | None, cure: dict[str, Any]):
    with pytest.raises(RecipeError) as caught:
        load_recipe(**values)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert help in problem.help if help else problem.help is None
    assert problem.place == (check.COMMAND_LINE if key in values else f"`{key}`")
    load_recipe(**values | cure)


def test_a_single_epoch_may_be_all_warm_up():
    """Trying a recipe out with `--epoch_size 1` needs no other change."""
    assert load_recipe(epoch_size=1, warmup_epochs=5).scheduler.warmup_epochs == 5


BLOCKS = {"model": "vit_s_patch16", "transformer": "linformer"}
#: values, the note, the change that silences it
NOTES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"ema_decay": 0.9}, "`ema_decay` has no effect without `ema: true`: no average is kept", {"ema": True}),
    (
        {"color_jitter": 0.4, "auto_augment": "rand-m9"}, "`color_jitter` has no effect with `auto_augment`",
        {"auto_augment": "3a"},
    ),
    (
        {"clip_value": 5.0}, "`clip_value` has no effect without `clip_grad: true`: gradients are not clipped",
        {"clip_grad": True},
    ),
    ({"lars_trust": 0.02}, "`lars_trust` has no effect without `opt: lars`", {"opt": "lars"}),
    ({"target_decay": 0.9}, "`target_decay` has no effect with `task: classification`", {"task": "byol"}),
    (
        {"task": "byol", "label_smoothing": 0.1, "loss": "BCE"},
        "`loss`, `label_smoothing` have no effect with `task: byol`, which has its own loss",
        {"task": "classification"},
    ),
    ({"blur_sigma": (0.5, 1.0)}, "`blur_sigma` has no effect without `blur_prob`", {"blur_prob": 0.5}),
    ({"solarize_threshold": 90}, "`solarize_threshold` has no effect without `solarize_prob`", {"solarize_prob": 0.2}),
    ({"color_jitter_prob": 0.8}, "`color_jitter_prob` has no effect without `color_jitter`", {"color_jitter": 0.4}),
    ({"cutmix_prob": 0.5}, "`cutmix_prob` has no effect: mixup and cutmix are both 0", {"mixup": 0.8}),
    ({"mixup_switch_prob": 0.4}, "`mixup_switch_prob` has no effect: mixup and cutmix are both 0", {"cutmix": 1.0}),
    (
        {"cutmix_prob": 0.5, "mixup_off_epoch": 9},
        "`cutmix_prob`, `mixup_off_epoch` have no effect: mixup and cutmix are both 0", {"cutmix": 1.0},
    ),
    (
        {"train_crop": "padded", "scale": (0.5, 1.0)}, "`scale` has no effect with `train_crop: padded`",
        {"train_crop": "random_resized"},
    ),
    (
        {"train_crop": "padded", "ratio": (1.0, 1.0)}, "`ratio` has no effect with `train_crop: padded`",
        {"train_crop": "random_resized"},
    ),
    ({"bce_sum": True}, "`bce_sum` has no effect without `loss: BCE`", {"loss": "BCE"}),
    ({"bce_target_thresh": 0.2}, "`bce_target_thresh` has no effect without `loss: BCE`", {"loss": "BCE"}),
    (
        {"warmup_epochs": 5, "decay_epochs": 86},
        "warm-up and decay_epochs (5 + 86) exceed epoch_size 90: min_lr is not reached", {"decay_epochs": 85},
    ),
    (
        {"decay_epochs": 91}, "warm-up and decay_epochs (0 + 91) exceed epoch_size 90: min_lr is not reached",
        {"num_cycles": 2},
    ),
    (
        {"warmup_epochs": 5, "decay_epochs": 86, "min_lr": 1e-6},
        "warm-up and decay_epochs (5 + 86) exceed epoch_size 90: min_lr is not reached", {"warmup_prefix": False},
    ),
    (
        {"scheduler": "one_cycle", "min_lr": 1e-6},
        "`min_lr` has no effect: one_cycle has its own warm-up and lower bound", {"scheduler": "cosine_decay"},
    ),
    *[
        (
            {"scheduler": "one_cycle", key: 2},
            f"`{key}` has no effect: one_cycle has its own warm-up and lower bound", {"scheduler": "cosine_decay"},
        )
        for key in ("warmup_epochs", "decay_epochs", "cooldown_epochs")
    ],
    (
        {"lr_scale": "sqrt"}, "`lr_scale` has no effect without `lr_base_batch`: lr is used as given",
        {"lr_base_batch": 256},
    ),
    *[
        (BLOCKS | {key: value}, f"`{key}` has no effect: `transformer` replaces the blocks", {"transformer": None})
        for key, value in (
            ("drop_path_rate", 0.1), ("drop_path_mode", "skip"), ("layer_scale_init", 1e-4), ("qkv_bias", False),
            ("attn_scale", "full"), ("head_dim", 32), ("proj_drop_rate", 0.1), ("attn_drop_rate", 0.1),
            ("grad_checkpointing", True), ("layer_decay", 0.7),
        )
    ],
]  # fmt: skip


NOTES += [
    (
        {"lr_epoch_stair": True, "warmup_epochs": 1},
        "`lr_epoch_stair`: the whole first epoch has the rate 0, where the warm-up starts; set warmup_lr",
        {"warmup_lr": 1e-6},
    ),
    (
        {"epoch_size": 1, "warmup_epochs": 1},
        "the warm-up lasts the whole run: `lr` is never reached",
        {"warmup_epochs": 0.5},
    ),
    (
        {"mixup": 0.2, "mixup_off_epoch": 90},
        "`mixup_off_epoch` 90 is not before the end: batches are mixed in all epochs",
        {"mixup_off_epoch": 89},
    ),
    (
        {"val_split": "train"},
        "`val_split` is the training split: the accuracy on it says nothing about other images",
        {"val_split": "val"},
    ),
    (
        {"in_channels": 1},
        "mean [0.449], std [0.226]: averages of the defaults for color, since in_channels is 1",
        {"mean": [0.5], "std": [0.5]},
    ),
]


@pytest.mark.parametrize(("values", "note", "cure"), NOTES, ids=[f"{row[0]}" for row in NOTES])
def test_note(values: dict[str, Any], note: str, cure: dict[str, Any]):
    assert load_recipe(**values).notes == (note,)
    assert load_recipe(**values | cure).notes == ()


def test_several_notes_at_once():
    values = {"ema_decay": 0.9, "clip_value": 5.0, "bce_sum": True, "cutmix_prob": 0.5}
    assert len(load_recipe(**values).notes) == len(values)


@pytest.mark.parametrize("key", ["ema_decay", "clip_value", "cutmix_prob", "scale", "bce_sum", "min_lr", "lr_scale"])
def test_a_key_at_its_default_is_not_noted(key: str):
    """RUN/recipe.yaml holds every key; only a value that someone chose is worth a note."""
    default = load_recipe(None).get(key)
    more = {"scale": {"train_crop": "padded"}, "min_lr": {"scheduler": "one_cycle"}}.get(key, {})
    assert load_recipe(**{key: default}, **more).notes == ()


def test_rules_pass_over_keys_that_are_wrong_already():
    """One problem per mistake: neither min_lr, which is not a number, nor the keys of an unknown model are compared."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, {"min_lr": "fast", "model": "fastvit_t9", "reg_tokens": "4"})
    assert sorted(problem.message.split("`")[1] for problem in caught.value.problems) == ["min_lr", "model"]


#: distribute, number of processes, whether the file is MindCV's, the problem, the note
LAUNCHES = [
    ("auto", 1, False, None, None),
    ("auto", 8, False, None, None),
    (True, 8, False, None, None),
    (False, 1, False, None, None),
    (True, 1, False, "`distribute` is True, but only one process was started", None),
    (False, 8, False, "`distribute` is False, but torchrun started 8 processes", None),
    (True, 1, True, None, "only one process was started: training with 1 process"),
    (False, 8, True, None, "torchrun started 8 processes: training with 8 processes"),
]


@pytest.mark.parametrize(("distribute", "num_processes", "mindcv", "problem", "note"), LAUNCHES)
def test_launch(tmp_path, distribute, num_processes: int, mindcv: bool, problem: str | None, note: str | None):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"distribute: {distribute}\n" + "mode: 0\n" * mindcv)
    problems, notes = check.launch(load_recipe(path), num_processes)
    assert [found.message for found in problems] == ([problem] if problem else [])
    assert [found for found in notes if note in found] == notes if note else notes == []
    assert len(notes) == bool(note)
    if problem:
        cure = "start with torchrun" if distribute else "start without torchrun"
        assert problems[0].help == f"{cure}{' --nproc_per_node N' * distribute}, or add --distribute auto"
        assert str(path) in str(problems[0])


def test_launch_refuses_what_was_typed_even_with_a_file_of_mindcv(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("mode: 0\n")
    problems, notes = check.launch(load_recipe(path, {"distribute": "False"}), 2)
    assert len(problems) == 1
    assert notes == []
