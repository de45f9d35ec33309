"""What an epoch's evaluation records: of the average, and next to it of the network itself."""

import json

from vitcli.engine.loop import fit
from vitcli.engine.signals import StopFlag
from vitcli.evaluators.top1 import Top1
from vitcli.log import Reporter


def test_raw_beside_average(make, capsys):
    """The number of the network itself is that of a separate evaluation, and does not choose the best epoch."""
    training = make(ema=True, ema_decay=0.999, ema_ramp_steps=0, num_samples=256)
    training.reporter = Reporter(enabled=True)
    training.reporter.record_in(training.run_dir, step=0)
    fit(training, StopFlag())
    *_, last = map(json.loads, (training.run_dir / "metrics.jsonl").read_text().splitlines())
    evaluator = training.evaluators["top1"]
    assert isinstance(evaluator, Top1)
    raw, average = (evaluator(network)["top1"] for network in (training.task.network, training.ema.model))
    assert raw != average, "else nothing can be told"
    assert (last["raw_top1"], last["top1"]) == (raw, average)
    assert training.progress.primary[training.progress.step] == average
    assert f"(average; raw {raw:.4g})" in capsys.readouterr().out


def test_without_an_average_there_is_one_number(make):
    training = make()
    training.reporter = Reporter(enabled=True)
    training.reporter.record_in(training.run_dir, step=0)
    fit(training, StopFlag())
    assert "raw_top1" not in (training.run_dir / "metrics.jsonl").read_text()
