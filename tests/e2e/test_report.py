"""`vitcli report` and `report: True`, as users type them; and a browser opens the page without asking for anything."""

import json
import os
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.report.answers import made_up
from tests.report.pages import read_page
from tests.report.test_markup import HOSTILE
from tests.report.test_one_run import one_page
from tests.support.commands import options
from tests.support.run_folders import write_run

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {
    "model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 8, "device": "cpu",
    "num_parallel_workers": 0, "log_interval": 1, "mixup": 0.5,
}  # fmt: skip


def test_a_report_at_the_end_and_afterwards(vitcli, image_folder, tmp_path):
    words = ["train", *options(KEYS | {"data_dir": image_folder, "epoch_size": 2})]
    done = vitcli(*words, "--run_dir", "run", "--report", True)
    assert done.returncode == 0, done.stderr
    assert "wrote run/report/report.html: the run run" in done.stdout
    page = read_page((tmp_path / "run/report/report.html").read_text())
    best = json.loads((tmp_path / "run/status.json").read_text())["best"]
    assert f"{best:.2f} % top-1" in page.text
    assert len(page.rows["Images as evaluation and training see them"]) == 5
    done = vitcli("report", "run", "-o", "page.html", "--num_images", 5)
    assert done.returncode == 0, done.stderr
    page = read_page((tmp_path / "page.html").read_text())
    assert "5 of the 12 validation images were evaluated" in page.text
    shutil.rmtree(image_folder)
    done = vitcli("report", "run")
    assert done.returncode == 0, done.stderr
    assert "note: the validation images were not evaluated" in done.stdout
    page = read_page((tmp_path / "report.html").read_text())
    assert f"{best:.2f} % top-1" in page.text
    assert "The training images cannot be shown" in page.text


def test_a_report_that_fails_changes_nothing(vitcli, image_folder, tmp_path):
    words = ["train", *options(KEYS | {"data_dir": image_folder, "epoch_size": 1}), "--run_dir", "run"]
    plugin = tmp_path / "full.py"
    plugin.write_text(
        "from vitcli.commands import report\n"
        "def fail(*_, **__): raise MemoryError('none')\n"
        "report.report = fail\n"
        "SOURCES = {'unused': fail}\n"
    )
    done = vitcli(*words, "--report", True, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    assert "the run is complete, but no report was written: MemoryError: none; later: vitcli report run" in done.stdout
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "done"


def test_mistakes_are_explained(vitcli, tmp_path):
    done = vitcli("report", "nowhere")
    assert done.returncode == 3
    assert "nowhere does not exist" in done.stderr
    (tmp_path / "empty").mkdir()
    done = vitcli("report", "empty")
    assert "empty is no run" in done.stderr
    assert "vitcli validate FILE" in done.stderr
    run = write_run(tmp_path / "run")
    done = vitcli("report", run, "-o", "no/where.html")
    assert done.returncode == 2
    assert "there is no folder no" in done.stderr
    done = vitcli("report", run)
    assert done.returncode == 0, done.stderr
    assert "is shown as its files tell" in done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_asks_for_nothing(tmp_path: Path, width: int):
    """Served over HTTP, where every request is seen; with names that would ask if they were obeyed."""
    names = [*HOSTILE, '<img src="/leak.png">', "<link rel=stylesheet href=/leak.css>"]
    _, text = one_page(made_up(10 * len(names), names), write_run(tmp_path / "run"))
    (tmp_path / "report.html").write_text(text)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/report.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    shot = tmp_path / "page.png"
    # a wide table may be scrolled inside the page; the page itself must not be wider than the window
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000",
         f"--screenshot={shot}", address],
        capture_output=True, text=True, timeout=120, env=os.environ | {"HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert shot.stat().st_size > 10_000, done.stderr
    assert asked == ["/report.html"]
    assert "CONSOLE" not in done.stderr, done.stderr
