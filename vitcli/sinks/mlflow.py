"""MLflow, through its own client: the server in MLFLOW_TRACKING_URI, else a database next to the run's folder.

`mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` shows the latter.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vitcli.sinks.sink import RunFacts, Sink

#: MLflow's limit on a parameter's text
_MOST_CHARACTERS = 500
#: and on the number of them in one request
_MOST_PARAMETERS = 100
#: what a variable is unless the user sets it: a server that is away holds training up for seconds, not for minutes
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflow(Sink):
    """A resumed run continues the same run there. Parameters are the recipe's keys."""

    package = "mlflow"

    def __init__(self, facts: RunFacts) -> None:
        for variable, value in _DEFAULTS.items():
            os.environ.setdefault(variable, value)
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric: Any = Metric
        runs = facts.run_dir.resolve().parent
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = MlflowClient(server or f"sqlite:///{runs / 'mlflow.db'}")
        if facts.known_as:
            self.name = facts.known_as
            self._client.update_run(self.name, status="RUNNING")
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vitcli")
        known = self._client.get_experiment_by_name(experiment)
        place = None if server else (runs / "mlartifacts").as_uri()
        identifier = known.experiment_id if known else self._client.create_experiment(experiment, place)
        self.name = self._client.create_run(identifier, run_name=facts.run_dir.name).info.run_id
        params = [Param(key, str(value)[:_MOST_CHARACTERS]) for key, value in facts.recipe.items()]
        for start in range(0, len(params), _MOST_PARAMETERS):
            self._client.log_batch(self.name, params=params[start : start + _MOST_PARAMETERS])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self.name, metrics=metrics)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._client.log_image(self.name, Image.fromarray(pixels), key=name.replace("/", "-"), step=step)

    def close(self, exit_code: int) -> None:
        status = {0: "FINISHED", 75: "KILLED"}.get(exit_code, "FAILED")
        self._client.set_terminated(self.name, status)
