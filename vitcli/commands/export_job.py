"""One export: the network in the form it is written in, the file, and the two sides of the comparison."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.commands.export_images import ExportImages
from vitcli.data.mixing import Normalizer
from vitcli.deploy import gate
from vitcli.deploy.artifact import NewArtifact, size_bytes
from vitcli.deploy.classify import open_session
from vitcli.deploy.formats import Format, Order, Session, Setting, plain
from vitcli.deploy.network import DTYPES, Deployed, example_input, for_runtime
from vitcli.deploy.quantize import Fallback, always_float, fall_back
from vitcli.deploy.timing import by_turns, percentiles
from vitcli.errors import DiskError, UsageError, VitcliError, is_disk_full
from vitcli.layers.reparam import reparameterize
from vitcli.networks.build import float_layers
from vitcli.networks.opened import Opened
from vitcli.networks.preprocessing import preprocessing
from vitcli.networks.provenance import machine, source_facts, versions
from vitcli.recipe.write import recipe_text


class ExportJob:
    """See the functions; the arguments are those of `export.ExportPlan`."""

    def __init__(
        self,
        opened: Opened,
        form: Format,
        images: ExportImages,
        new: NewArtifact,
        *,
        to: str,
        precision: str,
        takes_pixels: bool,
        batch: int | None,
        device: str,
    ) -> None:
        self.opened, self.form, self.images, self.new, self.to = opened, form, images, new, to
        self.aug, self.in_channels = opened.recipe.augmentation, opened.recipe.model.in_channels
        self.takes_pixels = takes_pixels
        self.logits: list[Tensor] = []  # of the source, for each batch of real images
        self.normalize = Normalizer(self.aug.mean, self.aug.std, self.in_channels)
        self.setting = Setting(precision, device=device)
        self.order = Order(
            network=self._network(DTYPES[precision] if precision in form.CASTS else torch.float32),
            example=example_input(
                takes_pixels=takes_pixels,
                img_size=self.aug.image_resize,
                in_channels=self.in_channels,
                batch=batch,
                device=device,
            ),
            folder=new.folder,
            precision=precision,
            output="probabilities" if takes_pixels else "logits",
            batch=batch,
            device=device,
        )

    def _network(self, dtype: torch.dtype) -> nn.Module:
        bake = {"mean": self.aug.mean, "std": self.aug.std} if self.takes_pixels else {}
        return Deployed(for_runtime(self.opened.model), dtype=dtype, **bake).eval().to(self.setting.device)

    def write_and_compare(self, *, say: Callable[[str], Any]) -> tuple[gate.Verdict, dict[str, Any] | None]:
        """Write the network and see what became of it; int8 may take attempts, and tells what was quantized."""
        if self.order.precision != "int8":
            self._write(self.order)
            return self.compare(), None
        kept = always_float(self.order.network, float_layers(self.opened.model))
        self.order = replace(self.order, calibration=self._calibration())
        found = fall_back(self.order, kept, self._write, self.compare, say=say)
        self.order = found.order
        return found.verdict, self._quantization(found)

    def _write(self, order: Order) -> None:
        """The network's file; whatever its exporter stumbles over is told in a line."""
        try:
            self.form.export(order)
        except VitcliError:
            raise
        except Exception as error:  # each exporter has its own kinds
            if is_disk_full(error):
                raise DiskError("the disk is full: nothing was exported", help="make room, or another -o") from None
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise UsageError(
                f"{self.to} cannot be made of {self.opened.recipe.model.model}: {lines[0][:300]}",
                help="VITCLI_VERBOSE=1 shows all that its exporter says; another --to or --precision may do",
            ) from (error if os.environ.get("VITCLI_VERBOSE") == "1" else None)

    def compare(self) -> gate.Verdict:
        """The file as it stands now beside the source."""
        sides = {"gives_probabilities": self.takes_pixels, "batch": self.order.batch}
        session = self._session()
        pixels = gate.made_up_pixels(self.aug.image_resize, self.in_channels)
        alone = [(one, self._source(one), None) for one in pixels.split(1)]  # runtimes treat a single image apart
        together = [(pixels, self._source(pixels), None)]
        made_up = gate.compare(session, [*together, *alone], self._to_input, **sides)
        real = gate.compare(session, self._real(), self._to_input, **sides) if self.images.val else None
        return gate.judge(self.order.precision, made_up, real)

    def _real(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels, the source's logits, labels; the logits are computed once for all attempts."""
        for number, (pixels, labels) in enumerate(self.images.labeled()):
            if number == len(self.logits):
                self.logits.append(self._source(pixels))
            yield pixels, self.logits[number], labels

    def speed(self) -> dict[str, Any]:
        """Latency and size beside the reparameterized source in PyTorch, by turns."""
        batch = self.order.batch or 1
        threads = torch.get_num_threads()
        eager, session = reparameterize(self.opened.model).to(self.setting.device), self._session(threads=threads)
        pixels = gate.made_up_pixels(self.aug.image_resize, self.in_channels)[:1].repeat(batch, 1, 1, 1)
        images, given = self.normalize(pixels).to(self.setting.device), self._to_input(pixels)

        def run_eager() -> None:
            with torch.inference_mode():
                eager(images).cpu()

        times = by_turns({"eager": run_eager, "artifact": lambda: session(given)}, rounds=5, seconds=0.2)
        return {
            "machine": machine(),
            "batch": batch,
            "threads": threads,
            "eager": percentiles(times["eager"]),
            "artifact": percentiles(times["artifact"]),
            "eager_mb": round(sum(t.numel() * t.itemsize for t in eager.state_dict().values()) / 1e6, 3),
            "artifact_mb": round(size_bytes(self.new.folder) / 1e6, 3),
        }

    def facts(self) -> dict[str, Any]:
        """artifact.json, but for what was measured."""
        recipe = self.opened.recipe
        return {
            "format": self.to,
            "file": self.form.FILE,
            "precision": self.order.precision,
            "device": self.order.device,
            "holds_code": self.form.HOLDS_CODE,
            "model": recipe.model.model,
            "input": {
                "dtype": "uint8" if self.takes_pixels else "float32",
                "layout": "NHWC" if self.takes_pixels else "NCHW",
                "batch": self.order.batch,
            },
            "output": self.order.output,
            "preprocessing": preprocessing(recipe),
            "source": source_facts(self.opened),
            "versions": versions("vitcli", "torch", *self.form.TO_EXPORT, *self.form.TO_RUN),
        }

    def _session(self, *, threads: int | None = None) -> Session:
        """The file by its own runtime, from a folder that could be shipped as it is."""
        recipe = recipe_text(self.opened.recipe) if "recipe" in self.opened.weights.meta else None
        artifact = self.new.write(self.facts(), self.opened.class_names, recipe)
        return open_session(artifact, threads=threads, device=self.setting.device)

    @torch.inference_mode()
    def _source(self, pixels: Tensor) -> Tensor:
        return self.opened.model(self.normalize(pixels))

    def _inputs(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) uint8 as the network takes it."""
        return pixels.permute(0, 2, 3, 1).contiguous() if self.takes_pixels else self.normalize(pixels)

    def _calibration(self) -> list[Tensor]:
        """Inputs in batches that the network takes; what is left over of a fixed size is made whole by repetition."""
        batches = [self._inputs(pixels) for pixels in self.images.calibration()]
        if self.order.batch is None:
            return batches
        inputs = torch.cat(batches)
        missing = -len(inputs) % self.order.batch
        return list(torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]).split(self.order.batch))

    def _to_input(self, pixels: Tensor) -> np.ndarray:
        return plain(self._inputs(pixels).numpy())

    def _quantization(self, found: Fallback) -> dict[str, Any]:
        return {
            "num_images": sum(len(pixels) for pixels in self.images.calibration()),
            "split": self.images.calibration_split,
            "kept": [name.removeprefix("model.") for name in found.order.keep_float],
            "layer_errors": {n.removeprefix("model."): float(f"{e:.3g}") for n, e in found.layer_errors.items()},
            "tried": found.tried,
        }
