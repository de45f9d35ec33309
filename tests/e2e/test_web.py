"""The exported page in Chromium: its pixels are Pillow's, its probabilities those of Python, and it can be used."""

import json
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.support.commands import ROOT
from vitcli.commands.export import ExportPlan, export
from vitcli.data.decode import open_image
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.classify import Classifier
from vitcli.deploy.formats.web import RUNTIME
from vitcli.deploy.web.serve import ISOLATION, Handler
from vitcli.errors import UsageError
from vitcli.models.registry import create_model
from vitcli.recipe.load import load_recipe

NODE_MODULES = Path(os.environ.get("VITCLI_NODE_MODULES", ROOT / "node_modules"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE, CLASSES = 48, 7

needs_a_browser = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        not (NODE_MODULES / "onnxruntime-web").is_dir(),
        reason="`npm install onnxruntime-web` at the top of the project, or VITCLI_NODE_MODULES, is needed",
    ),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model: Any = create_model("vit_ti_patch16", img_size=SIZE, depth=1, num_classes=CLASSES)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    path = tmp_path_factory.mktemp("network") / "vit.safetensors"
    save_file(model.state_dict(), path)
    return path


def to_page(network: Path, out: Path, **words: Any) -> Path:
    recipe = load_recipe(model="vit_ti_patch16", image_resize=SIZE, depth=1, num_classes=CLASSES)
    export(network, out, ExportPlan("web", **words), recipe=recipe)
    return out


@pytest.fixture(scope="module")
def site(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three exported folders, one of them damaged and one without the runtime, and pictures."""
    root = tmp_path_factory.mktemp("site")
    to_page(network, root / "whole", node_modules=NODE_MODULES)
    shutil.copytree(root / "whole", root / "damaged")
    (root / "damaged" / "labels.txt").write_text("other\n" * CLASSES)
    shutil.copytree(root / "whole", root / "bare")
    for name in RUNTIME:
        (root / "bare" / name).unlink()
    pages = [("whole", 1280), ("whole", 400), ("damaged", 400), ("bare", 400)]
    (root / "jobs.json").write_text(json.dumps({"names": pictures(root), "pages": pages}))
    (root / "test.html").write_text('<!doctype html><body><script type="module" src="test.mjs"></script>')
    shutil.copyfile(Path(__file__).parent / "web_page.mjs", root / "test.mjs")
    return root


def pictures(folder: Path) -> list[str]:
    """A photograph, and what a browser might treat in its own way."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    photo = coarse.resize((150, 110), Image.Resampling.BICUBIC)
    noise = Image.fromarray(generator.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54)
    kept: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "photo.jpg": (photo, {"quality": 90}), "turned.jpg": (photo, {"exif": exif}),
        "gray.jpg": (photo.convert("L"), {}),
        "noise.png": (noise, {}), "gray.png": (noise.convert("L"), {}), "palette.png": (noise.quantize(99), {}),
        "gamma.png": (noise, {"gamma": 0.2}), "lossless.webp": (noise, {"lossless": True}), "deep.png": (deep, {}),
    }  # fmt: skip
    for name, (image, words) in kept.items():
        image.save(folder / name, **words)
    (folder / "cut.png").write_bytes((folder / "noise.png").read_bytes()[:40])
    return [*kept, "cut.png"]


class Listening(ThreadingHTTPServer):
    """Serves a folder, with or without the headers for threads, until a page posts what it has found."""

    def __init__(self, folder: Path, *, isolated: bool) -> None:
        self.found: dict[str, Any] = {}
        self.done = threading.Event()
        owner = self

        class Receiver(Handler):
            def send_header(self, keyword: str, value: str) -> None:
                if isolated or keyword not in ISOLATION:
                    super().send_header(keyword, value)

            def do_POST(self) -> None:  # noqa: N802  the name that the library calls
                owner.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()
                owner.done.set()

        super().__init__(("127.0.0.1", 0), partial(Receiver, directory=str(folder)))


@pytest.fixture(
    scope="module", params=[True, pytest.param(False, marks=pytest.mark.soak)], ids=["threads", "one thread"]
)
def found(request: pytest.FixtureRequest, site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser found, from a server with the headers for threads, and from one without."""
    found = browse(site, tmp_path_factory.mktemp("profile"), isolated=request.param)
    several = request.param and (os.cpu_count() or 1) > 1
    assert (found["threads"] > 1) == several
    return found


def browse(site: Path, profile: Path, *, isolated: bool) -> dict[str, Any]:
    """What the page test.html of the folder `site` posts."""
    assert CHROMIUM
    with Listening(site, isolated=isolated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_port}/test.html"
        browser = subprocess.Popen([CHROMIUM, *words, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert server.done.wait(240), "the page posted nothing"
        finally:
            browser.terminate()
            browser.wait(20)
            server.shutdown()
    assert "error" not in server.found, server.found["error"]
    return server.found


@pytest.mark.slow
class TestInTheBrowser:
    pytestmark = needs_a_browser

    def test_the_pixels_are_those_of_python(self, found: dict[str, Any], site: Path):
        """Bit by bit; of JPEG files nearly, as the versions of the decoder may differ."""
        transform = Classifier(open_artifact(site / "whole"), threads=1).pixels
        for name, answer in found["answers"].items():
            if "error" in answer:
                continue
            expected = transform(open_image(site / name))
            ours = np.array(answer["pixels"]).reshape(expected.shape)
            np.testing.assert_allclose(ours, expected, atol=2 if name.endswith("jpg") else 0, err_msg=name)

    def test_the_probabilities_are_those_of_python(self, found: dict[str, Any], site: Path):
        classify = Classifier(open_artifact(site / "whole"), threads=1)
        for name, answer in found["answers"].items():
            if "error" in answer:
                continue
            pixels = np.array(answer["pixels"], np.uint8).reshape(1, SIZE, SIZE, 3)
            expected = classify(pixels)[0]
            assert expected.std() > 0.03
            np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5, err_msg=name)

    def test_pictures_that_are_refused(self, found: dict[str, Any]):
        errors = {name: answer["error"] for name, answer in found["answers"].items() if "error" in answer}
        assert errors == {
            "deep.png": "a PNG of 16 bits per channel, of which browsers give 8; use vitcli predict",
            "cut.png": "this browser cannot read the file as a picture",
        }

    @pytest.mark.parametrize("width", [1280, 400])
    def test_the_page_shows_the_classes(self, width: int, found: dict[str, Any], site: Path):
        page = found["pages"][f"whole {width}"]
        classify = Classifier(open_artifact(site / "whole"), threads=1)
        expected = classify.labels(classify([open_image(site / "photo.jpg")])[0])[:5]
        shown = [tuple(row.split("\n")) for row in page["rows"]]
        assert [name for name, _ in shown] == [name for name, _ in expected]
        for (_, text), (_, probability) in zip(shown, expected):
            assert float(text.removesuffix(" %")) == pytest.approx(100 * probability, abs=0.5)
        assert page["status"].endswith(" ms")
        assert page["canBeFocused"]
        assert not page["scrolls"]

    def test_a_damaged_folder_is_refused(self, found: dict[str, Any]):
        page = found["pages"]["damaged 400"]
        assert "labels.txt was changed" in page["status"]
        assert not page["rows"]

    def test_a_folder_without_the_runtime_says_how_to_get_it(self, found: dict[str, Any]):
        page = found["pages"]["bare 400"]
        assert page["missing"]
        assert not page["rows"]


@pytest.mark.soak
@pytest.mark.skipif("VITCLI_PHOTOS" not in os.environ, reason="VITCLI_PHOTOS=DIR names a folder of JPEG files")
@pytest.mark.parametrize("isolated", [True])
class TestPhotographs:
    pytestmark = needs_a_browser

    def test_pixels_and_probabilities(self, isolated: bool, site: Path, tmp_path: Path):
        """Prints how many photographs have the same pixels, and the largest difference of a probability."""
        paths = sorted(Path(os.environ["VITCLI_PHOTOS"]).rglob("*.JPEG"))
        names = [path.name for path in paths]
        for path in paths:
            shutil.copyfile(path, site / path.name)
        (site / "jobs.json").write_text(json.dumps({"names": names, "pages": []}))
        answers = browse(site, tmp_path, isolated=isolated)["answers"]
        classify = Classifier(open_artifact(site / "whole"), threads=1)
        same, pixel, probability = 0, 0, 0.0
        for name in names:
            expected = classify.pixels(open_image(site / name))
            ours = np.array(answers[name]["pixels"]).reshape(expected.shape)
            same += np.array_equal(ours, expected)
            pixel = max(pixel, np.abs(ours - expected).max())
            probability = max(probability, np.abs(answers[name]["probabilities"] - classify(expected[None])[0]).max())
        print(f"\n{same} of {len(names)} have equal pixels; at most {pixel} of 255, {probability:.2g} of a probability")
        assert pixel <= 2


def test_what_the_page_cannot_do_is_refused(network: Path, tmp_path: Path):
    for words, problem in (
        ({"input": "normalized"}, "gives the network pixels"), ({"batch": 3}, "one picture at a time"),
        ({"node_modules": tmp_path}, "ort.wasm.min.mjs, which the page needs"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=problem):
            to_page(network, tmp_path / "page", **words)
    assert list(tmp_path.iterdir()) == []
