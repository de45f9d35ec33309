"""LAMB, layer decay, freezing, repeated augmentation and the rest in one run: it resumes to the last bit."""

import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.test_resume import final_bytes, metrics
from tests.support.commands import SMALL, options

OPTIONS = SMALL | {
    "opt": "lamb", "layer_decay": 0.8, "freeze": "['^stem', 'stages.0']", "aug_repeats": 3, "train_crop": "padded",
    "num_samples": 64, "loss": "BCE", "bce_target_thresh": 0.2, "bce_sum": True,
}  # fmt: skip


@pytest.mark.slow
def test_resumes_exactly_and_keeps_what_is_frozen(tmp_path: Path, vitcli):
    """Frozen weights, and the statistics among them, are the first ones in both epochs, in the model and its average;
    between the epochs the model was in eval mode and came back."""
    done = vitcli("train", "-c", "quickstart", *options(OPTIONS), "--run_dir", "whole")
    assert done.returncode == 0, done.stderr
    assert "parameters train" in done.stdout
    whole = tmp_path / "whole"
    steps = [whole / "checkpoints" / f"step-{step:08d}" for step in (4, 8)]
    for stem in ("model", "ema"):
        first, last = (load_file(step / f"{stem}.safetensors") for step in steps)
        for name, value in last.items():
            if name.startswith(("stem.", "stages.0.")):
                assert torch.equal(value, first[name]), name
        assert not torch.equal(last["head.fc.weight"], first["head.fc.weight"])
    assert load_file(steps[0] / "model.safetensors")["stem.0.conv_kxk.0.bn.running_mean"].abs().max() == 0
    run = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "checkpoints" / "step-00000008")
    again = vitcli("train", "--resume", run, "--num_parallel_workers", 1)
    assert again.returncode == 0, again.stderr
    assert final_bytes(run) == final_bytes(whole)
    assert metrics(run)[-1] == metrics(whole)[-1]


def test_mistakes_are_explained(vitcli):
    def said(*words: str) -> str:
        done = vitcli("train", "-c", "quickstart", "--num_samples", 64, *words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "but the weights are random" in said("--freeze", "backbone")
    assert "'^steem' matches no parameter name" in said("--freeze", "['^steem']")
    assert "is not a regular expression" in said("--freeze", "['(']")


def test_a_recipe_for_fine_tuning_needs_weights(vitcli, image_folder):
    keys = options({"data_dir": image_folder, "image_resize": 32, "epoch_size": 2, "batch_size": 7, "device": "cpu"})
    done = vitcli("train", "-c", "finetune", *keys)
    assert done.returncode == 2
    assert "the recipe finetune starts from trained weights, but there is no ckpt_path" in done.stderr
    assert "--from_scratch True" in done.stderr
    done = vitcli("train", "-c", "finetune", *keys, "--from_scratch", "True")
    assert done.returncode == 0, done.stderr
    assert "drop_remainder leaves out 3 images in each epoch" in done.stdout
    assert "with 2 classes, top5 is always 100" in done.stdout


def test_help_shows_its_placeholders(vitcli):
    assert "runs/<recipe>-<time>-<hex>" in vitcli("train", "--help").stdout


def test_a_training_without_validation_needs_no_such_folder(vitcli, image_folder, tmp_path):
    shutil.rmtree(image_folder / "val")
    keys = {"data_dir": image_folder, "image_resize": 32, "epoch_size": 1, "batch_size": 8, "device": "cpu"}
    words = [*options(keys), "--run_dir", "run"]
    done = vitcli("train", *words)
    assert done.returncode == 3
    assert "val" in done.stderr
    done = vitcli("train", *words, "--val_while_train", "False")
    assert done.returncode == 0, done.stderr
    assert "there is nothing to evaluate on" in done.stdout
    assert (tmp_path / "run" / "checkpoints" / "step-00000003" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--image_resize", 32), "the last map of fastvit_t8 is one pixel"),
        (("--image_resize", 32, "--model", "fastvit_sa12"), "the last map of fastvit_sa12 is one pixel"),
        (("--image_resize", 32, "--freeze", "['^stem']"), None),  # whether it can is not known before
        (("--image_resize", 64), None),
        (("--model", "vit_ti_patch16", "--image_resize", 32, "--patch_size", 8, "--depth", 1), None),
    ],
)
def test_a_batch_of_one_image_is_known_before_the_training(vitcli, tmp_path, options, said):
    words = ("--dataset", "digits", "--num_samples", 9, "--batch_size", 4, "--drop_remainder", False, "--epoch_size", 1)
    done = vitcli("train", "--run_dir", "run", "--device", "cpu", "--warmup_epochs", 0, *words, *options)
    if said is None:
        assert "step 3" in done.stdout or "cannot train on one image" in done.stderr
    else:
        assert done.returncode == 2
        assert f"the last batch of each epoch has one image, on which BatchNorm cannot train: {said}" in done.stderr
        assert "step" not in done.stdout.replace("steps", "")


@pytest.mark.slow
def test_a_run_is_continued_for_more_epochs_by_the_command_that_is_named(vitcli, tmp_path):
    keys = options({"epoch_size": 2, "num_samples": 64, "batch_size": 32, "device": "cpu", "ema": False})
    assert vitcli("train", "-c", "quickstart", "--run_dir", "first run", *keys).returncode == 0
    done = vitcli("train", "--resume", "first run", "--epoch_size", 5, "--scheduler", "constant", "--mean", "[0.4]")
    assert done.returncode == 4
    command = shlex.split(done.stderr.split("from these weights: ")[1])
    assert command[:1] == ["vitcli"]
    done = vitcli(*command[1:])
    assert done.returncode == 0, done.stderr
    assert "weights  " in done.stdout
    recipe = next((tmp_path / "runs").glob("*/recipe.yaml")).read_text()
    for line in ("epoch_size: 3", "warmup_epochs: 0", 'scheduler: "constant"', "mean: [0.4]"):
        assert line in recipe
