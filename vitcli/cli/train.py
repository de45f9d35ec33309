"""`train`, where every recipe key is an option."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Context, Option

from vitcli.cli.help import Commands
from vitcli.cli.options import ConfigOption, loading
from vitcli.cli.recipe_keys import TRAIN_KEYS, command_with_keys
from vitcli.errors import UsageError
from vitcli.recipe.load import Recipe, load_recipe

train_app = Commands()


@command_with_keys(train_app, TRAIN_KEYS)
def train(
    ctx: Context,
    config: ConfigOption = None,
    submit: Annotated[
        Literal["slurm", "local"] | None,
        Option(help="Submit the training as a job of the cluster, by submitit, and return. local: on this machine."),
    ] = None,
    resources: Annotated[
        str | None,
        Option(
            metavar="NAME=VALUE,…",
            help="With --submit: submitit's parameters, such as nodes=2,gpus_per_node=8,timeout_min=1440.",
        ),
    ] = None,
    *,
    recipe_keys: dict[str, str],
) -> None:
    """Train a model, or continue a run.

    On this machine: `vitcli train -c fastvit_t8 --data_dir DIR`.
    On 8 GPUs: `torchrun --nproc_per_node 8 -m vitcli train …`.
    Every recipe key is an option; options override the recipe file.
    """
    recipe = _recipe(config, recipe_keys)
    if resources and not submit:
        raise UsageError("--resources is for jobs that --submit submits", help="add --submit slurm, or leave it out")
    _refuse_early(recipe)
    if recipe.system.dry_run:
        with loading():
            from vitcli.commands.preflight import preflight
        preflight(recipe)
        return
    if submit:
        from vitcli.commands.submit import submit as run_later

        run_later(recipe, submit, read_resources(resources or ""))
        return
    with loading():
        from vitcli.commands.train import train as run
    run(recipe)


def _refuse_early(recipe: Recipe) -> None:
    from vitcli.engine.before_torch import refuse_early

    refuse_early(recipe)


def read_resources(text: str) -> dict[str, int | str]:
    """`nodes=2,slurm_partition=gpu` -> {"nodes": 2, "slurm_partition": "gpu"}"""
    pairs = [word.partition("=") for word in text.split(",") if word]
    if wrong := [name for name, _, value in pairs if not value]:
        raise UsageError(f"--resources: {wrong[0]!r} has no value", help="write NAME=VALUE,NAME=VALUE")
    return {name: int(value) if value.isdecimal() else value for name, _, value in pairs}


def _recipe(config: str | None, keys: dict[str, str]) -> Recipe:
    """The recipe of the command; a run that is continued supplies its own."""
    if config is None and (resumed := keys.get("resume")):
        folder = Path(keys.get("run_dir", "") if resumed == "auto" else resumed)
        if (folder / "recipe.yaml").is_file():
            config = str(folder / "recipe.yaml")
    return load_recipe(config, keys)
