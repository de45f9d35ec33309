"""Removes the guards of docs/reliability.md one by one from a copy of the source: the test of each must then fail.

    python tests/guards.py [WORD]         all, or those whose file, code or test contains WORD

It takes some minutes; `make guards` does the same. A guard that is not found in its file, and a test that does not
fail without it or fails with it, are reported.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
#: a test that hangs without its guard has failed
MOST_SECONDS = 120


class Guard(NamedTuple):
    file: str
    code: str  #: occurs once in the file
    instead: str
    test: str


GUARDS = [
    # processes and signals
    Guard("engine/signals.py", "time.monotonic() - self.received_at > self._patience(number)", "True",
          "e2e/test_signals.py::test_ctrl_c_reaches_launcher_and_ranks"),
    Guard("engine/signals.py", "if handler is not signal.SIG_IGN", "", "e2e/test_signals.py::test_nohup"),
    Guard("process.py", "return _torchrun is not None and os.getppid() != _torchrun", "return False",
          "e2e/test_signals.py::test_ranks_end_with_their_launcher"),
    Guard("process.py", "    end_at_once(128 + signal.SIGTERM)", "    pass",
          "e2e/test_signals.py::test_a_rank_that_cannot_stop_in_time_ends_with_its_launcher"),
    Guard("rendezvous.py", "PrefixStore(name, store)", "PrefixStore('', store)",
          "e2e/test_restarts.py::test_rank_killed_and_restarted[2]"),
    Guard("rendezvous.py", '"localhost"', 'os.environ["MASTER_ADDR"]',
          "e2e/test_run_in_use.py::test_a_machine_that_does_not_find_itself"),
    Guard("engine/last_step.py", "training.world.is_main and _can_be_saved(training)", "False",
          "e2e/test_lost.py::test_lost_rank[9]"),
    Guard("engine/loop.py", "    _save_to_end(training)\n    raise error", "    raise error",
          "e2e/test_distributed.py::test_data_error_of_one_rank_is_the_runs"),
    Guard("engine/last_step.py", "return training.half_step.undo()", "return True",
          "e2e/test_lost.py::test_vanished_images"),
    Guard("engine/run_lock.py", "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass",
          "e2e/test_bad_input.py::test_two_processes_in_one_run"),
    Guard("engine/run_lock.py", "    if _is_held_here(path):\n        return None\n", "",
          "engine/test_run_lock.py"),
    Guard("commands/train.py", "with stop_flag() as stop:", "with __import__('contextlib').nullcontext(False) as stop:",
          "commands/test_train.py"),
    Guard("sinks/sink.py", "except Exception as error:", "except KeyError as error:",
          "sinks/test_sinks.py::test_a_sink_that_fails_is_left"),
    Guard("output.py", "self._drop_the_rest(error)\n            return len(text)", "raise",
          "test_output.py::test_training_goes_on_when_the_log_is_full"),
    # disks and checkpoints
    Guard("disk.py", "raise _in_words(error, what, folder, num_bytes, then) from None", "raise",
          "e2e/test_disk.py::test_full_at_a_checkpoint"),
    Guard("disk.py", "if errno_of(error) not in _PASSING:", "if True:",
          "engine/test_checkpoint.py::test_refusal_at_every_system_call"),
    Guard("disk.py", "if number in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE) and not folder.is_dir():", "if False:",
          "test_disk.py"),
    Guard("engine/checkpoint.py", "            final.rename(replaced)", "            shutil.rmtree(final)",
          "engine/test_checkpoint.py::test_crash_at_every_system_call"),
    Guard("engine/checkpoint.py", "if error.errno not in _NO_LINKS:", "if True:",
          "engine/test_checkpoint.py::test_without_symbolic_links"),
    Guard("engine/saving.py", "    settle(training)  # never two writers\n", "",
          "engine/test_saving.py::test_the_same_files_as_without"),
    Guard("engine/host_memory.py", "whole(value.detach())) for name", "whole(value.detach())) and value for name",
          "engine/test_saving.py::test_steps_during_the_writing_do_not_change_it"),
    Guard("weights/checkpoint_folders.py", "_CHECKPOINT.fullmatch(path.name)", "_CHECKPOINT.match(path.name)",
          "e2e/test_resume.py::test_copies_of_checkpoints_do_not_disturb"),
    Guard("weights/manifest.py", "[problem for problem in problems if problem]", "[]",
          "e2e/test_resume.py::test_damaged_newest_checkpoint_is_named_and_skipped"),
    Guard("engine/resume.py", "if before[name] != now[name]]:", "if False]:", "e2e/test_resume.py::test_refusals"),
    Guard("engine/resume.py", "if changes := _data_differences(facts, data_facts):", "if changes := []:",
          "e2e/test_bad_input.py::test_changed_data_is_refused_on_resume"),
    Guard("engine/resume.py", "elif other_labels(old, new):", "elif False:",
          "e2e/test_bad_input.py::test_exchanged_labels_are_refused_on_resume"),
    Guard("engine/check_network.py", "if there is None or needed <= there:", "if True:",
          "engine/test_check_network.py::test_what_a_training_takes"),
    Guard("data/fingerprint.py", 'facts["contents_blake2b"] = _contents(source)', "pass",
          "e2e/test_bad_input.py::test_an_edit_of_the_same_size_is_refused_with_contents"),
    Guard("engine/resume.py", "isinstance(before, int) and now > before", "now > before",
          "e2e/test_fuzz.py::test_a_number_that_is_none_in_the_message"),
    # numbers
    Guard("engine/step.py", "    drop_step_if(optimizer, bad)\n", "",
          "engine/test_nonfinite.py::test_a_skipped_step_changes_no_bit"),
    Guard("engine/step.py", "all_sum((~torch.stack([norm, loss]).isfinite()).float())",
          "(~torch.stack([norm, loss]).isfinite()).float()",
          "e2e/test_nonfinite.py::test_two_processes_agree_on_what_only_one_sees"),
    Guard("engine/writer.py", "        _refuse_not_finite(taken)\n", "",
          "engine/test_nonfinite.py::test_no_checkpoint_with_an_infinite_moment"),
    # images and their names
    Guard("data/decode.py", "    if width * height * max(channels / 4, 1) > most:", "    if False:",
          "data/test_decode.py::test_bomb_costs_neither_memory_nor_time"),
    Guard("data/find_images.py", 'is_kind(entry, "is_file") and is_image', "is_image",
          "data/test_datasets.py::test_what_is_no_image_is_left_out_and_counted"),
    Guard("engine/opened_data.py", "if digests != ranks[0][1]:", "if False:",
          "e2e/test_shared_listing.py::test_a_rank_with_other_images"),
    Guard("errors.py", "char if _is_shown(char) else", "char if True else",
          "test_terminal.py::test_hostile_names_train"),
    Guard("data/spreadsheet.py", 'if unicodedata.category(char)[0] not in "ZC"', "", "data/test_spreadsheet.py"),
    # recipes and weights
    Guard("recipe/flat_yaml.py", "MAX_DEPTH = 4", "MAX_DEPTH = 10**9", "recipe/test_bounds.py"),
    Guard("recipe/flat_yaml.py", "MAX_KEYS = 1_000", "MAX_KEYS = 10**9", "recipe/test_bounds.py"),
    Guard("weights/torch_file.py", "weights_only=True", "weights_only=False",
          "weights/test_read.py::test_no_code_is_run"),
]  # fmt: skip


def main(word: str = "") -> None:
    chosen = [guard for guard in GUARDS if any(word in text for text in guard)]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        for guard in chosen:
            verdict = tried(guard, copy)
            failures += verdict != "ok"
            print(f"{verdict:<10} {guard.test} without {guard.file}: {guard.code.strip().splitlines()[0]}", flush=True)
    print(f"{len(chosen) - failures} of {len(chosen)} guards are needed by their tests")
    sys.exit(min(failures, 1))


def tried(guard: Guard, copy: Path) -> str:
    file = copy / "vitcli" / guard.file
    text = file.read_text(encoding="utf-8")
    if text.count(guard.code) != 1:
        return "NOT FOUND"
    if not passes(guard.test, copy):
        return "FAILS"
    file.write_text(text.replace(guard.code, guard.instead), encoding="utf-8")
    try:
        return "UNNOTICED" if passes(guard.test, copy) else "ok"
    finally:
        file.write_text(text, encoding="utf-8")


def passes(test: str, copy: Path) -> bool:
    """A test that is skipped here proves nothing and counts as passed."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not soak", "--timeout", str(MOST_SECONDS)]
    command = [sys.executable, "-m", "pytest", *options, f"tests/{test}"]
    env = os.environ | {"PYTHONPATH": str(copy)}  # also for the commands that a test starts
    log = copy / "guards.log"
    with log.open("w") as output:
        pytest = subprocess.Popen(command, cwd=copy, env=env, stdout=output, stderr=output, start_new_session=True)
        code = pytest.wait()
    with suppress(ProcessLookupError):
        os.killpg(pytest.pid, signal.SIGKILL)  # what a test that failed has left
    if code not in (0, 1):
        raise SystemExit(log.read_text())
    return code == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
