"""Turns the name of weights into a local file or folder: a path stays as it is, an address is downloaded once.

    https://host/path/vit_b_16-c867db91.pth     cached; eight or more hex digits are the start of its SHA-256
    hf-hub:org/name[/file][@revision]           a repository of the Hugging Face hub, or one file of it
    timm:name[.tag][@revision]                  hf-hub:timm/name.tag; without a tag, timm's default one

Nothing else uses the network. What was downloaded once is found without it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.progress import wrap_file

from vitcli.errors import DataError, UsageError, is_disk_full
from vitcli.log import SafeConsole
from vitcli.weights.address import HUB, TIMM, WEB
from vitcli.weights.hub_folder import CONFIG, INDEX, PREPROCESSOR, WEIGHTS, files_in
from vitcli.weights.manifest import sha256_of
from vitcli.weights.published import with_tag

TIMEOUT_SECONDS, HUB_TIMEOUT_SECONDS = 30, 4
#: as torchvision and timm name files: name-<start of the SHA-256>.pth
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|pth\.tar|bin|safetensors)$")


def fetch(source: str | Path) -> Path:
    """The file or folder that `source` names, downloaded if it is an address that was not downloaded before.

    Raises:
        DataError: the server refuses, cannot be reached, or sent another file than announced.
        UsageError: the address is malformed, or the package for the hub is not installed.
    """
    name = str(source)
    if name.startswith(WEB):
        return _fetch_file(name)
    if name.startswith((HUB, TIMM)):
        return _fetch_from_hub(_of_timm(name) if name.startswith(TIMM) else name)
    return Path(source)


def _of_timm(address: str) -> str:
    """The address on the hub of the weights that timm has under a name."""
    name, at, revision = address.removeprefix(TIMM).partition("@")
    return f"{HUB}timm/{with_tag(name)}{at}{revision}"


def cache_dir() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitcli"


def _fetch_file(url: str) -> Path:
    file_name = Path(unquote(urlsplit(url).path)).name
    if not file_name:
        raise UsageError(f"{url} does not name a file")
    folder = cache_dir() / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / file_name
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes on one machine wait for the first one
            if not target.exists():
                _download(url, target)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server answers {error.code} {error.reason}", help="check the address") from None
    except (OSError, ValueError, HTTPException) as error:
        if is_disk_full(error):
            help = "free some space, or set XDG_CACHE_HOME"
            raise DataError(f"the disk is full: no room for {url} in {folder}", help=help) from None
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url} cannot be downloaded: {reason}", help="check the address and the network") from None
    return target


def _download(url: str, target: Path) -> None:
    """Through a temporary file, which is renamed only if its length and hash are right."""
    request = urllib.request.Request(url, headers={"User-Agent": "vitcli"})
    console = SafeConsole(stderr=True)
    bar: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response,
    ):
        draft = Path(folder) / target.name
        expected = int(response.headers.get("Content-Length") or 0)
        with wrap_file(response, expected, description=target.name, **bar) as body, draft.open("wb") as file:
            shutil.copyfileobj(body, file, 2**20)
        if expected and draft.stat().st_size != expected:
            raise DataError(f"{url}: {draft.stat().st_size:,} of {expected:,} bytes arrived", help="try again")
        announced = HASH_IN_NAME.search(target.name)
        if announced and not (found := sha256_of(draft)).startswith(announced[1]):
            raise DataError(f"{url}: its SHA-256 begins with {found[:8]}, not with {announced[1]}", help="try again")
        draft.replace(target)


def _fetch_from_hub(address: str) -> Path:
    """The repository's folder in the cache of the hub, with weights and configuration; or the one file named."""
    match = re.fullmatch(r"hf-hub:([^/@]+/[^/@]+)(?:/([^@]+))?(?:@(.+))?", address)
    if match is None:
        help = "write hf-hub:org/name, optionally followed by /file and @revision"
        raise UsageError(f"{address} is not an address of the hub", help=help)
    repository, file_name, revision = match.groups()
    download = partial(_hub_file, repository, revision)
    try:
        if file_name:
            found = download(file_name)
        elif found := next(filter(None, map(download, WEIGHTS)), None):
            shards = files_in(found) if found.name.endswith(INDEX) else ()
            for name in (CONFIG, PREPROCESSOR, *shards):
                download(name)
            found = found.parent
    except ImportError:
        help = "pip install 'vitcli[hub]', or give a file"
        raise UsageError(f"{address} needs the package huggingface_hub", help=help) from None
    except (OSError, ValueError) as error:
        help = "check the name, the revision and the network"
        raise DataError(f"{address}: {str(error).splitlines()[0]}", help=help) from None
    if found is None:
        help = "name a file: hf-hub:org/name/file"
        raise DataError(f"{address} has no {file_name or ' or '.join(WEIGHTS)}", help=help)
    return found


def _check_hub() -> None:
    """Raise OSError at once if the hub cannot be reached; its package would try six times, for 25 seconds."""
    from huggingface_hub import constants

    request = urllib.request.Request(constants.ENDPOINT, headers={"User-Agent": "vitcli"}, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(f"{constants.ENDPOINT} cannot be reached: {reason}") from None


def _hub_file(repository: str, revision: str | None, name: str) -> Path | None:
    """One file, from the cache of the hub if it is there; None if the repository has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    cached = try_to_load_from_cache(repository, name, revision=revision)
    if cached is not None:  # a path, or an object that stands for "no such file"
        return Path(cached) if isinstance(cached, str) else None
    _check_hub()
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except RemoteEntryNotFoundError:
        return None
