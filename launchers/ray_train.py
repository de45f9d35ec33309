"""Training by Ray Train: python launchers/ray_train.py. Ray makes the process group; vitcli uses it and leaves it."""

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

KEYS = {"data_dir": "/data/imagenet", "run_dir": "/runs/fastvit_t8", "resume": "auto"}


def train_on_one_worker() -> None:
    import vitcli

    vitcli.train(vitcli.load_recipe("fastvit_t8", **KEYS))


if __name__ == "__main__":
    TorchTrainer(
        train_on_one_worker,
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl"),  # vitcli asks for flags and counts over the CPU
        scaling_config=ScalingConfig(num_workers=16, use_gpu=True),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    ).fit()
