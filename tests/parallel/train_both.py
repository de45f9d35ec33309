"""Short runs with replicas and with shards, on as many ranks as torchrun starts: [torchrun …] train_both.py OUT CASE …

Writes the runs OUT/<case>/<way>: `ddp` and `fsdp` from start to end, `ddp_fsdp` and `fsdp_ddp` where the second way
continues what the first one saved after one epoch.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from vitcli.data.datasets import build_splits
from vitcli.distributed import World, joined
from vitcli.engine.build import build_training
from vitcli.engine.loop import fit
from vitcli.engine.resume import ResumePoint
from vitcli.engine.signals import StopFlag
from vitcli.engine.state import restore
from vitcli.engine.training import Training
from vitcli.log import Reporter
from vitcli.recipe.load import load_recipe
from vitcli.weights.json_file import read_json

#: 3 steps in each of 2 epochs; 31 validation images, so that a rank may have fewer batches than another
BASE = {
    "dataset": "digits", "num_samples": 72, "image_resize": 16, "global_batch_size": 24, "epoch_size": 2, "lr": 3e-3,
    "num_parallel_workers": 0, "log_interval": 1, "val_batch_size": 5, "device": "cpu", "warmup_epochs": 0,
    "model": "vit_ti_patch16", "patch_size": 4, "embed_dim": 36, "depth": 2, "num_heads": 2,
}  # fmt: skip
CASES = {
    "adamw": {
        "ema": True, "ema_ramp_steps": 3, "clip_grad": True, "clip_value": 0.5, "layer_decay": 0.8, "mixup": 0.8,
        "grad_checkpointing": True, "drop_path_rate": 0.2, "layer_scale_init": 0.1,
    },
    "accumulated": {"opt": "sgd", "momentum": 0.9, "use_nesterov": True, "lr": 0.05, "batch_size": 3},
    "frozen": {"opt": "nadam", "freeze": ["patch_embed", r"blocks\.0\.attn"]},
    "rmsprop": {"opt": "rmsprop", "momentum": 0.9, "lr": 1e-4},
    "adagrad": {"opt": "adagrad"},
    "bf16": {"amp": "bf16", "ema": True, "ema_ramp_steps": 3},
    "fastvit": {"model": "fastvit_t8", "image_resize": 32, "patch_size": None, "ema": True, "ema_ramp_steps": 3},
    "byol": {"task": "byol", "projector_hidden_dim": 32, "projector_dim": 16, "predictor_hidden_dim": 32},
}  # fmt: skip
SMALL_VIT = ("patch_size", "embed_dim", "depth", "num_heads")


def build(case: str, world: World, run_dir: Path, parallel: str) -> Training:
    keys = BASE | {"batch_size": 24 // world.size} | CASES[case] | {"parallel": parallel}
    if not str(keys["model"]).startswith("vit"):
        keys = {name: value for name, value in keys.items() if name not in SMALL_VIT}
    recipe = load_recipe(None, **keys)
    splits = build_splits(recipe.dataset)
    splits = replace(splits, val=splits.val.subset(31))
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    reporter = Reporter(enabled=world.is_main)
    return build_training(recipe, world, run_dir, splits, reporter, fresh=True)


def run(training: Training) -> None:
    fit(training, StopFlag())
    training.reporter.close()


def continued(case: str, world: World, out: Path, first: str, second: str) -> None:
    """The run `<first>_<second>`: the checkpoint of `first` at step 3, continued by `second`."""
    target = out / f"{first}_{second}"
    if world.is_main:
        shutil.copytree(out / first, target, symlinks=True)
        shutil.rmtree(target / "checkpoints" / "step-00000006")
    dist.barrier()
    training = build(case, world, target, second)
    folder = target / "checkpoints" / "step-00000003"
    restore(training, ResumePoint(folder, read_json(folder / "state.json")))
    run(training)


def main(out: Path, cases: list[str]) -> None:
    with joined("cpu", distributed=True) as world:
        for case in cases:
            for way in ("ddp", "fsdp"):
                training = build(case, world, out / case / way, way)
                training.reporter.record_in(training.run_dir, step=0)
                run(training)
            for first, second in (("ddp", "fsdp"), ("fsdp", "ddp")):
                continued(case, world, out / case, first, second)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
