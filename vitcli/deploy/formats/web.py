"""A static page that classifies pictures in the browser: an ONNX network, run by ONNX Runtime compiled to WebAssembly.

The page is in `vitcli/deploy/web/`. The runtime is the npm package onnxruntime-web, which is not part of this project:
it is copied from where npm has installed it, or the user installs it in the exported folder later.
"""

import shutil
from pathlib import Path

from vitcli.deploy.formats import Order, Session, Setting, onnx
from vitcli.errors import UsageError

FILE = onnx.FILE
PRECISIONS = ("fp32", "int8")
CASTS = ()
BATCH = None
EXTRA = onnx.EXTRA
DEVICES = onnx.DEVICES
HOLDS_CODE = False
IS_REFERENCE = False
NEEDS = onnx.NEEDS

PAGE = Path(__file__).parents[1] / "web"
#: the parts of onnxruntime-web that the page loads
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
#: how its user installs the runtime; the page says the same
INSTALL = "npm install onnxruntime-web@1.30.0"


def export(order: Order) -> None:
    """Write the network, the page, and the runtime if it is found.

    Raises:
        UsageError: the page cannot give the network its input, or order.node_modules was given and lacks the runtime.
    """
    _check(order)
    runtime = _runtime(order.node_modules)
    onnx.export(order)
    for path in [*(path for path in PAGE.iterdir() if path.is_file()), *runtime]:
        shutil.copyfile(path, order.folder / path.name)


def open_session(path: Path, setting: Setting) -> Session:
    """The same network in ONNX Runtime for Python."""
    return onnx.open_session(path, setting)


def use(folder: Path) -> list[str]:
    """Commands for the user of the exported `folder`, which they call THIS_FOLDER."""
    has_runtime = all((folder / name).is_file() for name in RUNTIME)
    install = [] if has_runtime else [f"(cd THIS_FOLDER && {INSTALL})    # the page needs it to run the network"]
    return [*install, "python3 THIS_FOLDER/serve.py    # then open the address that it prints"]


def _check(order: Order) -> None:
    if order.output != "probabilities":
        raise UsageError("the page gives the network pixels", help="remove --input")
    if order.batch not in (None, 1):
        raise UsageError("the page classifies one picture at a time", help="remove --batch")
    channels = order.example.shape[-1]
    if channels not in (1, 3):
        raise UsageError(f"a browser shows pictures of 1 or 3 channels, and the network takes {channels}")


def _runtime(node_modules: Path | None) -> list[Path]:
    """The files of the runtime in `node_modules`; by default in ./node_modules, and none if it is not there."""
    package = (node_modules or Path("node_modules")) / "onnxruntime-web"
    files = [package / "dist" / name for name in RUNTIME]
    missing = [path for path in files if not path.is_file()]
    if not missing:
        return files
    if node_modules or package.exists():
        help = f"run {INSTALL} and give its folder node_modules, or remove --node_modules"
        raise UsageError(f"cannot read {missing[0]}, which the page needs", help=help)
    return []
