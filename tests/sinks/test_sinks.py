"""Numbers and pictures of a run arrive in TensorBoard, W&B, MLflow and Trackio, read back by their own programs."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vitcli import catalog
from vitcli.commands.train import train
from vitcli.disk import Faults
from vitcli.errors import UsageError
from vitcli.recipe.load import load_recipe
from vitcli.sinks.sink import NAMES, Sinks, check_sinks

PAGE = Image.new("RGB", (6, 4), "red")
RECIPE = {"lr": "1e-3", "model": "fastvit_t8"}


def two_sessions(run_dir: Path, name: str) -> None:
    """Steps 1 to 3; then, as after a kill, again from step 2 on, with other numbers."""
    run_dir.mkdir()
    for first, factor in ((1, 1.0), (3, 10.0)):
        sinks = Sinks([name], run_dir, RECIPE, first - 1, Faults(), pytest.fail)
        for step in range(first, 4):
            sinks.scalars(step, {"train/loss": factor * step, "val/top1": 50 + step})
        sinks.picture(3, "train/batch", PAGE)
        sinks.close(0)


def test_tensorboard(tmp_path: Path):
    """What the first session wrote of later steps is not shown."""
    two_sessions(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert scalars == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert (events.Images("train/batch")[-1].width, events.Images("train/batch")[-1].height) == (6, 4)
    assert not (tmp_path / "run" / NAMES).exists()


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which W&B's file is after a header of 7 bytes: blocks of 32 KiB with pieces."""
    position, pieces = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


def logged(files: list[Path]) -> tuple[list[float], list[dict[str, Any]]]:
    """The losses, and the records of pictures, in W&B's files."""
    from wandb.proto import wandb_internal_pb2

    losses, pictures = [], []
    for file in files:
        for content in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            losses += [values["train/loss"]] if "train/loss" in values else []
            pictures += [values] if "train/batch.width" in values else []
    return losses, pictures


def test_wandb_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    two_sessions(tmp_path / "run", "wandb")
    name = json.loads((tmp_path / "run" / NAMES).read_text())["wandb"]
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2, "the second session continues the run"
    deadline = time.monotonic() + 30  # W&B's service may still be writing when `finish` has returned
    losses, pictures = logged(files)
    while len(losses) < 4 and time.monotonic() < deadline:
        time.sleep(0.5)
        losses, pictures = logged(files)
    assert losses == [1.0, 2.0, 3.0, 30.0]
    assert (pictures[0]["train/batch.width"], pictures[0]["train/batch.height"]) == (6, 4)
    assert wandb.run is None


@pytest.mark.filterwarnings("ignore:The ``noload``")  # in MLflow 3.17 with SQLAlchemy 2.1
def test_mlflow_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    two_sessions(tmp_path / "run", "mlflow")
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("vitcli").experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params == RECIPE
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 2.0), (3, 3.0), (3, 30.0)]
    assert any(item.path.endswith(".png") for item in client.list_artifacts(run.info.run_id, "images"))


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="trackio asks for Pillow < 13: installed by hand only")
    two_sessions(tmp_path / "run", "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("vitcli")
    assert run.name == "run"
    logged = [
        (line["step"], line["train/loss"]) for line in SQLiteStorage.get_logs("vitcli", "run") if "train/loss" in line
    ]
    assert logged == [(1, 1.0), (2, 2.0), (3, 3.0), (3, 30.0)]


class Broken:
    """A sink whose server is away from the second number on."""

    package = "json"
    name = None

    def __init__(self, facts: Any) -> None:
        self.count = 0

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.count += 1
        if self.count == 2:
            raise ConnectionError("no route to host\nand much more")
        assert self.count < 2, "a sink that failed gets nothing more"

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        raise AssertionError("a sink that failed gets nothing more")

    def close(self, exit_code: int) -> None:
        raise AssertionError("a sink that failed gets nothing more")


def test_a_sink_that_fails_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(catalog.SINKS, "broken", f"{__name__}:Broken")
    said: list[str] = []
    sinks = Sinks(["broken", "tensorboard"], tmp_path, RECIPE, 0, Faults(), said.append)
    for step in (1, 2, 3):
        sinks.scalars(step, {"train/loss": 1.0})
    sinks.picture(3, "x", PAGE)
    sinks.close(0)
    assert said == ["broken failed and gets nothing more of this run: no route to host"]
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")) == 3


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_sinks(["tensorboard"], chosen=False)
    with pytest.raises(UsageError, match="`sinks: wandb` needs the package wandb"):
        check_sinks(["wandb"], chosen=True)


def test_a_run_and_its_pictures(tmp_path: Path):
    """The sinks that a user chooses get the first batch and the worst images; training is the same as without them."""
    keys = {
        "dataset": "synthetic",
        "num_samples": 32,
        "image_resize": 32,
        "batch_size": 16,
        "epoch_size": 1,
        "lr": 0.01,
    }
    keys |= {"model": "vit_ti_patch16", "depth": 1, "num_parallel_workers": 0, "mixup": 0.2, "warmup_epochs": 0}
    for name, sinks in (("with", {"sinks": ["tensorboard"], "report": True}), ("without", {})):
        train(load_recipe(None, run_dir=tmp_path / name, **keys, **sinks))
    shown, hidden = (EventAccumulator(str(tmp_path / name)).Reload() for name in ("with", "without"))
    assert shown.Tags()["images"] == ["train/batch", "val/worst"]
    assert hidden.Tags()["images"] == []
    assert shown.Tags()["scalars"] == hidden.Tags()["scalars"]
    files = [tmp_path / name / "checkpoints/step-00000002/model.safetensors" for name in ("with", "without")]
    one, other = map(load_file, files)
    assert all(value.equal(other[key]) for key, value in one.items())
