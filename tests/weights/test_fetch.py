"""Addresses, with real servers on this machine: only complete files, once, and without the network afterwards."""

import contextlib
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vitcli.errors import DataError, UsageError
from vitcli.weights.address import is_remote
from vitcli.weights.fetch import _check_hub, cache_dir, fetch
from vitcli.weights.read import read_weights

COMMIT = "0123456789" * 4
TENSORS = {"a": torch.arange(50_000.0)}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """A folder; of `cut.*` only half is sent. Of the hub's interface: resolve/REVISION/FILE with commit and etag."""

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()

    def send_error(self, code, message=None, explain=None) -> None:
        known = Path(self.translate_path("/" + "/".join(self.path.split("/")[1:3]))).is_dir()
        self.send_response(code)
        self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        super().end_headers()

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("/resolve/main/", "/").replace("/resolve/v2/", "/v2/"))

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2] if "cut." in self.path else content)

    def log_message(self, *args: object) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(address, requests so far) of a server of `folder`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder)) as server:
        server.requests = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.requests  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder to be served, with its address and requests; and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "site").mkdir()
    with serving(tmp_path / "site") as (address, requests):
        yield tmp_path / "site", address, requests


def test_paths_and_addresses(tmp_path):
    for address in ("https://host/w.pth", "http://host/w", "hf-hub:org/name", "timm:vit_base@main"):
        assert is_remote(address)
    for path in ("w.pth", tmp_path, "runs/https", "C:/w.pth"):
        assert not is_remote(path)
        assert fetch(path) == Path(path)


def test_a_file_is_downloaded_once(site):
    folder, address, requests = site
    save_file(TENSORS, folder / "w.safetensors")
    url = f"{address}/w.safetensors?download=true"
    weights = read_weights(url)
    assert torch.equal(weights.tensors["a"], TENSORS["a"])
    assert weights.source == url
    assert len(requests) == 1
    (folder / "w.safetensors").unlink()
    assert torch.equal(read_weights(url).tensors["a"], TENSORS["a"])
    assert len(requests) == 1
    assert fetch(url).name == "w.safetensors"


def files_in_cache() -> list[str]:
    return [path.name for path in cache_dir().rglob("*") if path.is_file() and path.name != ".lock"]


def test_what_is_not_kept(site):
    folder, address, _ = site
    save_file(TENSORS, folder / "cut.safetensors")
    with pytest.raises(DataError, match=r"cut\.safetensors: .* bytes arrived|cannot be downloaded"):
        read_weights(f"{address}/cut.safetensors")
    with pytest.raises(DataError, match="answers 404"):
        read_weights(f"{address}/none.pth")
    with pytest.raises(DataError, match="cannot be downloaded"):
        read_weights("http://127.0.0.1:9/w.pth")
    (folder / "login.pth").write_text("<html>please log in</html>")
    with pytest.raises(DataError, match="web page"):
        read_weights(f"{address}/login.pth")
    with pytest.raises(UsageError, match="does not name a file"):
        read_weights(f"{address}/")
    assert files_in_cache() == []


def test_the_hash_in_a_name(site):
    folder, address, _ = site
    save_file(TENSORS, folder / "w.safetensors")
    content = (folder / "w.safetensors").read_bytes()
    right = hashlib.sha256(content).hexdigest()[:8]
    for name in (f"vit-{right}.safetensors", "vit-01234567.safetensors", "fastvit-final.safetensors"):
        (folder / name).write_bytes(content)
    fetch(f"{address}/vit-{right}.safetensors")
    fetch(f"{address}/fastvit-final.safetensors")
    with pytest.raises(DataError, match=f"begins with {right}, not with 01234567"):
        fetch(f"{address}/vit-01234567.safetensors")
    assert sorted(files_in_cache()) == ["fastvit-final.safetensors", f"vit-{right}.safetensors"]


def test_the_hub(tmp_path, site, monkeypatch):
    """The real huggingface_hub: a repository with its configuration, one file of a revision, and without the server."""
    folder, address, requests = site
    repository = folder / "org" / "tiny"
    (repository / "v2").mkdir(parents=True)
    save_file(TENSORS, repository / "model.safetensors")
    save_file({"b": torch.ones(3)}, repository / "v2" / "other.safetensors")
    config = {"label_names": ["cat", "dog"], "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    (repository / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    weights = read_weights("hf-hub:org/tiny")
    assert torch.equal(weights.tensors["a"], TENSORS["a"])
    assert weights.meta == {"config": config, "class_names": ["cat", "dog"]}
    assert weights.source == "hf-hub:org/tiny"
    assert list(read_weights("hf-hub:org/tiny/other.safetensors@v2").tensors) == ["b"]
    for absent in ("hf-hub:org/tiny/none.pth", "timm:none"):
        with pytest.raises(DataError, match=absent.removeprefix("timm:")):
            read_weights(absent)
    before = len(requests)
    assert read_weights("hf-hub:org/tiny").meta == weights.meta
    assert len(requests) == before


def test_malformed_and_unavailable(monkeypatch):
    with pytest.raises(UsageError, match="not an address of the hub"):
        fetch("hf-hub:only-a-name")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="needs the package") as caught:
        fetch("hf-hub:org/name")
    assert "pip install 'vitcli[hub]'" in caught.value.help


def test_a_hub_that_answers_can_be_reached(site, monkeypatch):
    """Whatever it says to a request for its front page."""
    monkeypatch.setattr(constants, "ENDPOINT", f"{site[1]}/absent")
    _check_hub()
    assert len(site[2]) == 1


def test_without_network_the_hub_is_not_tried_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"timm/fastvit_t8.apple_in1k: http://127.0.0.1:9 cannot be reached"):
        fetch("timm:fastvit_t8")
    assert time.monotonic() - began < 5  # six attempts of the package take 25
