"""Trains in a process group that was there before, as under Ray Train: [torchrun …] own_group.py RUN"""

import sys

import torch
import torch.distributed as dist

import vitcli

KEYS = {
    "dataset": "digits", "num_samples": 32, "image_resize": 32, "batch_size": 8, "epoch_size": 1, "device": "cpu",
    "model": "vit_ti_patch16", "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2,
}  # fmt: skip

if __name__ == "__main__":
    dist.init_process_group("gloo")
    vitcli.train(vitcli.load_recipe(None, run_dir=sys.argv[1], **KEYS))
    ones = torch.ones(1)
    dist.all_reduce(ones)  # the group is still there
    print(f"{int(ones)} ranks", flush=True)
    dist.destroy_process_group()
