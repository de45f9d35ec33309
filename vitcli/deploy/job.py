"""One export: the network in the form it is written in, its file, and both sides of the comparison."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitcli.data.mixing import Normalizer
from vitcli.data.source import Source
from vitcli.deploy import gate
from vitcli.deploy.artifact import NewArtifact, size_bytes
from vitcli.deploy.classify import open_session
from vitcli.deploy.comparison_images import ComparisonImages
from vitcli.deploy.formats import Format, Order, Session, use
from vitcli.deploy.network import DTYPES, Activation, Deployed, example_input, for_runtime
from vitcli.deploy.plan import ExportPlan
from vitcli.deploy.quantize import always_float, layer_errors
from vitcli.deploy.timing import by_turns, percentiles
from vitcli.errors import DiskError, UsageError, VitcliError, is_disk_full
from vitcli.layers.reparam import reparameterize
from vitcli.networks.build import float_layers
from vitcli.networks.calibration import divided
from vitcli.networks.opened import Opened
from vitcli.networks.precedence import preprocessing
from vitcli.networks.provenance import machine, source_facts, versions
from vitcli.recipe.write import recipe_text
from vitcli.terminal import phase

#: images on which the layers are compared with each other for int8
NUM_SENSITIVITY = 100
#: number of the worst layers that stay in float, one attempt after the other
ATTEMPTS = (0, 1, 2, 4, 8, 16, 32)


class ExportJob:
    """Writes `opened` into the folder of `new` and compares the file, run by its own runtime, with the source."""

    def __init__(
        self, opened: Opened, form: Format, images: ComparisonImages, new: NewArtifact, plan: ExportPlan
    ) -> None:
        self.opened, self.form, self.images, self.new, self.plan = opened, form, images, new, plan
        self.aug, self.in_channels = opened.recipe.augmentation, opened.recipe.model.in_channels
        self.logits: list[Tensor] = []  # of the source, for each batch of real images
        self.normalize = Normalizer(self.aug.mean, self.aug.std, self.in_channels)
        inside = (self.aug.mean, self.aug.std) if plan.takes_pixels else None
        self.thresholds = opened.thresholds
        self.activation: Activation = "softmax" if self.thresholds is None else "sigmoid"
        dtype = DTYPES[plan.precision] if plan.precision in form.CASTS else torch.float32
        self.order = Order(
            network=Deployed(
                for_runtime(opened.model),
                normalization=inside,
                activation=self.activation,
                dtype=dtype,
                temperature=opened.temperature,
            )
            .eval()
            .to(plan.device),
            example=example_input(plan, self.aug.image_resize, self.in_channels),
            folder=new.folder,
            precision=plan.precision,
            output="probabilities" if plan.takes_pixels else "logits",
            batch=plan.batch,
            device=plan.device,
            node_modules=plan.node_modules,
        )

    def write_and_compare(self, *, say: Callable[[str], Any]) -> tuple[gate.Verdict, dict[str, Any] | None]:
        """Write the network and judge it; int8 may take several attempts, and also returns what was quantized."""
        if self.plan.precision == "int8":
            return self._fall_back(say)
        self._write()
        return self._compare(), None

    def _fall_back(self, say: Callable[[str], Any]) -> tuple[gate.Verdict, dict[str, Any]]:
        """Write in int8; while that costs more than the gate allows, keep more of the worst layers in float."""
        assert self.images.calibration_set is not None
        with phase("reading images for calibration", len(self.images.calibration_set)) as advance:
            calibration = self._calibration(self.images.calibration_set, advance)
        kept = always_float(self.order.network, float_layers(self.opened.model))
        sample = calibration[: -(-NUM_SENSITIVITY // len(calibration[0]))]
        with phase("finding the layers that int8 costs most"):
            errors = layer_errors(self.order.network, sample, kept=kept)
        if not errors:
            problem = "int8: there is no layer to quantize between the first and the last"
            raise UsageError(problem, help="use bf16 or fp16")
        worst, tried = list(errors), []
        counts = [count for count in ATTEMPTS if count < len(worst)]
        for count in counts:
            self.order = replace(self.order, calibration=calibration, keep_float=(*kept, *worst[:count]))
            self._write()
            verdict = self._compare()
            assert verdict.real is not None
            tried.append({"num_float": count, verdict.real.METRIC: round(verdict.real.artifact_percent, 3)})
            if not verdict.problems or count == counts[-1]:
                return verdict, {
                    "num_images": len(self.images.calibration_set),
                    "split": self.images.calibration_split,
                    "kept": [_in_model(name) for name in self.order.keep_float],
                    "layer_errors": {_in_model(name): float(f"{error:.3g}") for name, error in errors.items()},
                    "tried": tried,
                }
            last = f" (the last: {', '.join(map(_in_model, worst[:count][-3:]))})" if count else ""
            say(f"int8     {verdict.problems[0]}; {count} layers in float{last}")
        raise AssertionError("the last attempt is always returned")

    def _write(self) -> None:
        """Write the network's file; an error of its exporter becomes one line."""
        try:
            with phase(f"writing {self.plan.to} in {self.plan.precision}"):
                self.form.export(self.order)
        except VitcliError:
            raise
        except Exception as error:  # each exporter has its own kinds
            if is_disk_full(error):
                raise DiskError("the disk is full: nothing was exported", help="free space on it") from None
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise UsageError(
                f"{self.opened.recipe.model.model} cannot be exported to {self.plan.to}: {lines[0][:300]}",
                help="VITCLI_VERBOSE=1 shows the exporter's own messages; try another --to or --precision",
            ) from (error if os.environ.get("VITCLI_VERBOSE") == "1" else None)

    def _compare(self) -> gate.Verdict:
        """Compare the file as it is now with the source."""
        with phase(f"opening it with the runtime of {self.plan.to}"):
            session = self._session()
        pixels = gate.made_up_pixels(self.aug.image_resize, self.in_channels)
        together = [(pixels, self._source(pixels), None)]
        alone = [(one, self._source(one), None) for one in pixels.split(1)]  # a single image may be a special case
        how = {"gives_probabilities": self.plan.takes_pixels, "thresholds": self.thresholds}
        with phase("comparing on made-up images"):
            made_up = gate.compare(session, [*together, *alone], self._to_input, **how)
        real = gate.compare(session, self._real(val), self._to_input, **how) if (val := self.images.val) else None
        return gate.judge(self.plan.precision, made_up, real)

    def _real(self, images: Source) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels, the source's logits, targets; the logits are computed once for all attempts."""
        with phase("comparing on real images", len(images)) as advance:
            for number, (pixels, targets) in enumerate(self.images.batches(images)):
                if number == len(self.logits):
                    self.logits.append(self._source(pixels))
                yield pixels, self.logits[number], targets
                advance(len(pixels))

    def speed(self) -> dict[str, Any]:
        """Latency and size next to the reparameterized source in PyTorch, measured in turns."""
        batch = self.plan.batch or 1
        threads = torch.get_num_threads()
        eager, session = reparameterize(self.opened.model).to(self.plan.device), self._session(threads=threads)
        pixels = gate.made_up_pixels(self.aug.image_resize, self.in_channels)[:1].repeat(batch, 1, 1, 1)
        images, given = self.normalize(pixels).to(self.plan.device), self._to_input(pixels)

        def run_eager() -> None:
            with torch.inference_mode():
                eager(images).cpu()

        times = by_turns({"eager": run_eager, "artifact": lambda: session(given)}, rounds=5, seconds=0.2)
        return {
            "machine": machine(),
            "batch": batch,
            "threads": threads,
            "is_reference": self.form.IS_REFERENCE,
            "eager": percentiles(times["eager"]),
            "artifact": percentiles(times["artifact"]),
            "eager_mb": round(sum(t.numel() * t.itemsize for t in eager.state_dict().values()) / 1e6, 3),
            "artifact_mb": round(size_bytes(self.new.folder) / 1e6, 3),
        }

    def facts(self) -> dict[str, Any]:
        """The content of artifact.json, except what was measured."""
        recipe, plan = self.opened.recipe, self.plan
        return {
            "format": plan.to,
            "file": self.form.FILE,
            "precision": plan.precision,
            "device": plan.device,
            "holds_code": self.form.HOLDS_CODE,
            "use": use(self.form, self.new.folder),
            "model": recipe.model.model,
            "input": {
                "dtype": "uint8" if plan.takes_pixels else "float32",
                "layout": "NHWC" if plan.takes_pixels else "NCHW",
                "batch": plan.batch,
            },
            "output": self.order.output,
            "activation": self.activation,
            "temperature": self.opened.temperature,
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
            "preprocessing": preprocessing(recipe),
            "source": source_facts(self.opened),
            "versions": versions("vitcli", "torch", *self.form.NEEDS["export"], *self.form.NEEDS["run"]),
        }

    def _session(self, *, threads: int | None = None) -> Session:
        """The file opened by its own runtime, from a folder that is complete."""
        recipe = recipe_text(self.opened.recipe, portable=True) if self.opened.recipe_of_run else None
        artifact = self.new.write(self.facts(), self.opened.class_names, recipe)
        return open_session(artifact, threads=threads)

    @torch.inference_mode()
    def _source(self, pixels: Tensor) -> Tensor:
        return divided(self.opened.model(self.normalize(pixels)), self.opened.temperature)

    def _inputs(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> the input of the network."""
        return pixels.permute(0, 2, 3, 1).contiguous() if self.plan.takes_pixels else self.normalize(pixels)

    def _to_input(self, pixels: Tensor) -> np.ndarray:
        return self._inputs(pixels).numpy()

    def _calibration(self, images: Source, advance: Callable[[int], None]) -> list[Tensor]:
        """Inputs in batches that the network accepts; with a fixed batch size, the last one is filled by repetition."""
        batches = []
        for pixels, _ in self.images.batches(images):
            batches.append(self._inputs(pixels))
            advance(len(pixels))
        if self.plan.batch is None:
            return batches
        inputs = torch.cat(batches)
        missing = -len(inputs) % self.plan.batch
        return list(torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]).split(self.plan.batch))


def _in_model(name: str) -> str:
    """The name of a layer of the deployed network in the model itself."""
    return name.removeprefix("model.")
