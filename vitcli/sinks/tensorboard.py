"""TensorBoard's file in the folder of the run, written without its SummaryWriter, whose thread ends on a full disk."""

import io
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vitcli.disk import AppendedFile
from vitcli.sinks.sink import RunFacts, Sink


class TensorBoard(Sink):
    """A new file for each session; what files of former sessions have of later steps is not shown."""

    package = "tensorboard"
    name = None

    def __init__(self, facts: RunFacts) -> None:
        from tensorboard.compat.proto import event_pb2

        self._kinds: Any = event_pb2
        file = f"events.out.tfevents.{time.time():.6f}.{platform.node()}.{os.getpid()}"
        self._file = AppendedFile(facts.run_dir / file, facts.faults)
        self._append(file_version="brain.Event:2")
        self._append(step=facts.step + 1, session_log=self._kinds.SessionLog(status=self._kinds.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._append(
            step=step, summary={"value": [{"tag": name, "simple_value": value} for name, value in values.items()]}
        )

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        height, width, _ = pixels.shape
        image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": content.getvalue()}
        self._append(step=step, summary={"value": [{"tag": name, "image": image}]})

    def close(self, exit_code: int) -> None: ...

    def _append(self, **fields: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(self._kinds.Event(wall_time=time.time(), **fields).SerializeToString())
        self._file.append(record.getvalue())
