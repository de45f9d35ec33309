"""A whole step without a wait for the device: forward, backward, clipping, the guards, the update, the average."""

from contextlib import nullcontext

import pytest

from tests.support.waiting import NothingWaits, Waited
from vitcli.catalog import OPTIMIZERS
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model

ALL_GUARDS = {"ema": True, "clip_grad": True, "on_nonfinite": "skip", "global_batch_size": 32, "norm": True}
BYOL = {"task": "byol", "evaluate": ["collapse"], "projector_dim": 8}


def two_steps(training: Training) -> None:
    """Meta tensors stand for those of a GPU. The first step moves constants to the device, once."""
    training.autocast = nullcontext  # there is none for meta tensors  # type: ignore[assignment]
    batches = iter(training.batches(start_step=0))
    train_step(training, batches)
    with NothingWaits():
        train_step(training, batches)


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_no_optimizer_waits(make, opt: str):
    two_steps(make(where="meta", opt=opt, **ALL_GUARDS))


@pytest.mark.parametrize("task", [{}, {"loss": "BCE", "class_weights": [1.0] * 10}, BYOL], ids=["ce", "bce", "byol"])
def test_no_task_waits(make, task: dict[str, object]):
    two_steps(make(where="meta", **ALL_GUARDS, **task))


def test_no_network_waits(make):
    """With all that is drawn at random inside: dropped branches and patches."""
    fastvit = FastViT(depths=(1, 1), dim=16, mlp_ratio=2, attention=True, num_classes=10, drop_path_rate=0.2)
    drops = {"drop_path_rate": 0.3, "drop_path_mode": "skip", "patch_drop_rate": 0.5, "proj_drop_rate": 0.1}
    vit = create_model("vit_ti_patch16", num_classes=10, img_size=32, depth=2, embed_dim=12, **drops)
    for network in (fastvit, vit):
        two_steps(make(where="meta", network=network, image_resize=32, **ALL_GUARDS))


def test_a_wait_is_found(make):
    training = make(where="meta", **ALL_GUARDS)
    steps = iter((False, True))
    training.task.after_step = lambda step, total: training.meter.dropped.item() if next(steps) else None
    with pytest.raises(Waited):
        two_steps(training)
