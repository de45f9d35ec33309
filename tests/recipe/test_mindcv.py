"""MindCV's files load unchanged, mean what they mean there, and nothing that is lost is lost in silence."""

from pathlib import Path

import pytest

from vitcli.errors import RecipeError
from vitcli.recipe import check, mindcv
from vitcli.recipe.load import load_recipe

#: the keys and values of MindCV's FastViT-T8 recipe (pull request 741)
FASTVIT = """
mode: 0
distribute: False
num_parallel_workers: 8
val_while_train: True
val_interval: 1
log_interval: 100
dataset: "imagenet"
data_dir: "/path/to/imagenet"
shuffle: True
dataset_download: False
batch_size: 128
image_resize: 224
scale: [0.08, 1.0]
ratio: [0.75, 1.333]
hflip: 0.5
vflip: 0.0
interpolation: "bicubic"
re_prob: 0.1
mixup: 0.8
cutmix: 1.0
color_jitter: 0.4
auto_augment: "randaug-m7-mstd0.5"
model: "fastvit_t8"
num_classes: 1000
pretrained: False
keep_checkpoint_max: 10
ckpt_save_policy: "latest_k"
ckpt_save_interval: 1
ckpt_save_dir: "./ckpt"
epoch_size: 300
dataset_sink_mode: True
ema_decay: 0.9995
amp_level: "O2"
loss_scale_type: 'auto'
loss: "CE"
label_smoothing: 0.1
scheduler: "cosine_decay"
lr: 0.001
min_lr: 0.0
warmup_epochs: 5
warmup_factor: 0.01
decay_epochs: 295
opt: "adamw"
momentum: 0.9
weight_decay: 0.05
filter_bias_and_bn: True
use_nesterov: False
"""

#: keys that recipes of other MindCV models use
OTHERS = """
mode: 1
distribute: True
dataset: ''
drop_remainder: True
val_split: validation
scale: [ 0.08, 1.0 ]
cutmix: 1
crop_pct: 0.935
mean: [123.675, 116.28, 103.53]
std: [58.395, 57.12, 57.375]
ema: True
ckpt_path: ''
ckpt_save_policy: None
amp_level: 'O3'
val_amp_level: 'O2'
drop_path_rate: 0.1
drop_rate: 0.0
aux_factor: 0.1
loss_scale: 1024
dynamic_loss_scale: True
drop_overflow_update: True
scheduler: 'warmup_cosine_decay'
lr: 5e-4
min_lr: 0.00001
warmup_epochs: 30
decay_epochs: 270
decay_rate: 0.1
num_cycles: 2
layer_decay: 0.65
lr_epoch_stair: True
weight_decay: 0.05
weight_decay_filter: auto
eps: 1e-8
aug_repeats: 3
re_value: 0
device_target: Ascend
resume_opt: False
multi_step_decay_milestones: [30, 60, 90]
clip_grad: True
clip_value: 5.0
gradient_accumulation_steps: 2
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mindcv.yaml"
    path.write_text(text)
    return path


def test_fastvit(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, FASTVIT))
    assert recipe.dataset.dataset == "imagefolder"
    assert recipe.system.amp == "auto"
    assert recipe.optimizer.weight_decay_filter == "norm_and_bias"
    assert recipe.optimizer.ema is False
    assert recipe.scheduler.decay_epochs == 295
    assert recipe.augmentation.crop_pct == 0.875
    said = "\n".join(recipe.notes)
    for key in ("mode", "ckpt_save_dir", "dataset_sink_mode", "amp_level", "loss_scale_type", "filter_bias_and_bn"):
        assert f"`{key}`" in said, f"what became of {key} must be said"
    assert "`ema_decay` has no effect without `ema: true`" in said
    assert "`color_jitter` has no effect with `auto_augment`" in said


def test_shipped_recipe_is_the_same(tmp_path: Path):
    """recipes/mindcv_fastvit_t8.yaml spells out what MindCV's file means."""
    theirs, ours = load_recipe(write(tmp_path, FASTVIT)).flat(), load_recipe("mindcv_fastvit_t8").flat()
    differing = {name for name in theirs if theirs[name] != ours[name]}
    about_the_machine = {
        "data_dir",
        "distribute",
        "num_parallel_workers",
        "num_classes",
        "ema_decay",
        "color_jitter",
        "weight_decay_filter",
    }
    assert differing <= about_the_machine


def test_other_models_keys(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, OTHERS))
    assert recipe.augmentation.mean == pytest.approx((0.485, 0.456, 0.406))
    assert recipe.checkpoint.ckpt_save_policy is None
    assert recipe.scheduler.scheduler == "cosine_decay"
    assert recipe.optimizer.opt == "adam", "MindCV's default, not ours"
    assert recipe.augmentation.interpolation == "bilinear"
    said = "\n".join(recipe.notes)
    assert "`aux_factor` is ignored" in said
    assert recipe.optimizer.layer_decay == 0.65
    assert recipe.augmentation.aug_repeats == 3
    assert "was divided by 255" in said


def test_random_erasing_by_noise(tmp_path: Path):
    assert load_recipe(write(tmp_path, "mode: 0\nre_value: random\n")).augmentation.re_mode == "pixel"


def test_defaults_are_ours_in_our_files(tmp_path: Path):
    ours, theirs = (load_recipe(write(tmp_path, text)) for text in ("lr: 1\n", "lr: 1\nmode: 0\n"))
    for name, value in mindcv.DEFAULTS.items():
        assert theirs.get(name) == value
        assert theirs.origins[name] == check.MINDCV_DEFAULT
        assert name not in ours.origins


def test_distribute_under_torchrun(tmp_path: Path):
    """MindCV's file says False while eight processes are started: there a note, in a file of ours a mistake."""
    problems, notes = check.launch(load_recipe(write(tmp_path, FASTVIT)), 8)
    assert not problems
    assert "`distribute` is False, but torchrun started 8 processes" in notes[0]
    problems, notes = check.launch(load_recipe(write(tmp_path, "distribute: false\n")), 8)
    assert problems
    assert not notes
    assert check.launch(load_recipe(None), 8) == ([], [])


def test_misspelt_foreign_key(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"did you mean `amp_level`"):
        load_recipe(write(tmp_path, "amp_levell: O2\n"))


def test_foreign_keys_on_the_command_line(tmp_path: Path):
    recipe = load_recipe("quickstart", {"amp_level": "O2", "mode": "1"})
    assert recipe.system.amp == "auto"
    assert recipe.origins["amp"] == check.COMMAND_LINE
    assert len(recipe.notes) == 2
    assert not recipe.from_mindcv, "the file is ours, so are the defaults"
