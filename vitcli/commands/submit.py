"""`vitcli train --submit slurm`: the training as a job of a cluster, by the package submitit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcli.commands.train import train
from vitcli.engine import run_dir
from vitcli.engine.before_torch import check_start
from vitcli.engine.preflight import with_absolute_paths
from vitcli.errors import Interrupted, UsageError, VitcliError, show
from vitcli.log import SafeConsole, relative
from vitcli.recipe.load import Recipe
from vitcli.recipe.plugins import plugin_files, use_plugin
from vitcli.recipe.schema import Checkpoint

_console = SafeConsole(markup=False, highlight=False, emoji=False, soft_wrap=True)

#: the signal by which SLURM warns; vitcli saves on it, while submitit's own (USR2) would end the process between steps
WARNING_SIGNAL = "USR1"
#: seconds between the warning and the end of the time limit
WARNING_SECONDS = 120


@dataclass(frozen=True)
class Job:
    """What every task of the job calls; submitit pickles it, and a job that is requeued gets it again."""

    recipe: Recipe
    plugins: tuple[Path, ...]

    def __call__(self) -> None:
        """Train, or continue; a run that was interrupted is put into the queue again."""
        import submitit

        for file in self.plugins:
            use_plugin(file)
        launched = submitit.helpers.TorchDistributedEnvironment()
        launched.export(set_cuda_visible_devices=False, overwrite=True)
        try:
            train(self.recipe)
        except Interrupted as error:
            show(error)
            if launched.rank == 0 and (job := os.environ.get("SLURM_JOB_ID")):
                subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
            sys.exit(error.exit_code)
        except VitcliError as error:
            sys.exit(show(error))

    def checkpoint(self) -> Any:
        """For submitit, when the warning comes while nothing is trained yet: the same job once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(recipe: Recipe, cluster: str, resources: Mapping[str, Any]) -> Any:
    """Submit the training, and return submitit's job; its log files are in RUN/job/.

    Args:
        cluster: "slurm", or "local": processes on this machine.
        resources: parameters of submitit's `update_parameters`; by default each GPU of a node gets one process.

    Raises:
        UsageError: submitit is not installed, there is no such cluster or parameter, the recipe cannot be trained, or
            the folder holds a run that `resume` does not name.
    """
    check_start(recipe)
    folder = _folder_of(recipe.checkpoint) or run_dir.unused_path(recipe.name)
    recipe = with_absolute_paths(recipe).changed(run_dir=str(folder.absolute()), resume="auto")
    if cluster == "slurm" and not shutil.which("srun"):
        raise UsageError("there is no SLURM here: srun is not found", help="run this on a login node of the cluster")
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = WARNING_SIGNAL  # read when submitit is imported
    logs = folder.absolute() / "job"
    try:
        import submitit

        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        if cluster == "slurm":
            resources = {"slurm_signal_delay_s": WARNING_SECONDS, **resources}
        tasks = resources.get("gpus_per_node", 1)
        executor.update_parameters(name=recipe.name, **{"tasks_per_node": tasks, **resources})
        job = executor.submit(Job(recipe, tuple(file.absolute() for file in plugin_files())))
    except ModuleNotFoundError:
        raise UsageError("--submit needs the package submitit", help="pip install 'vitcli[slurm]'") from None
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        for made in (logs, logs.parent):
            with suppress(OSError):  # it holds something
                made.rmdir()
        help = "known are nodes, gpus_per_node, tasks_per_node, cpus_per_task, mem_gb, timeout_min and slurm_…"
        raise UsageError(f"submitit refused the job: {str(error).splitlines()[0]}", help=help) from None
    _console.print(f"run      {relative(folder)}")
    _console.print(f"job      {job.job_id} ({cluster}); its output is in {relative(folder / 'job')}")
    return job


def _folder_of(section: Checkpoint) -> Path | None:
    """The folder that the recipe names: of the run that is continued, or of a new one."""
    if section.resume not in (None, "auto"):
        return Path(section.resume)
    if section.resume is None:
        run_dir.check_free(section.run_dir)
    return section.run_dir
