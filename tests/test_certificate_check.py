"""The study's check of the promise can fail; and real text end to end, where data and a model are at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lightning_steer.statistics.bounds import Hoeffding
from lightning_steer.studies.mera import certificate_check, real_text

DATA, MODELS = os.environ.get("LIGHTNING_STEER_DATA"), os.environ.get("LIGHTNING_STEER_MODELS")


def outcomes(gain=0.1, harm=0.02, n=1000, k=4, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.random(n) < 0.6
    move = rng.random((k, n))
    return base, np.where(base, move >= harm / 0.6, move < gain / 0.4)


def test_no_bound_breaks_its_promise_on_real_outcomes_and_the_default_has_the_power():
    base, steered = outcomes()
    shares = certificate_check.check(base, steered, 250, 0.05)
    assert np.mean(shares["churn"]) == pytest.approx(0.12, abs=0.03)
    for name in certificate_check.BOUNDS:
        share, low, high = shares[f"{name}, false"]
        assert low <= 0.05
        assert low <= share <= high
    assert shares["exact paired, power"][0] > shares["Hoeffding, power"][2] + 0.2


def test_the_papers_constant_is_caught(monkeypatch):
    """Hoeffding's bound as if the change had range 1: false certificates far above delta."""

    class HalfRange(Hoeffding):
        def at(self, gains, harms, n, delta):
            return (gains - harms) / n - np.sqrt(np.log(1 / delta) / (2 * n))

    monkeypatch.setattr(certificate_check, "BOUNDS", {"half": HalfRange()})
    base, steered = outcomes(gain=0.35, harm=0.3, k=2)
    share, low, _ = certificate_check.check(base, steered, 250, 0.05)["half, false"]
    assert low > 0.05
    assert share > 0.07


def test_without_any_data_it_says_so(tmp_path, capsys):
    assert real_text.main(["--file", str(tmp_path / "none"), "--llm", "x"]) == 2
    assert "there is no data file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (DATA and MODELS), reason="LIGHTNING_STEER_DATA and LIGHTNING_STEER_MODELS are not set")
def test_real_messages_end_to_end(workshop, capsys):
    file, model = Path(str(DATA)) / "sms_spam" / "SMSSpamCollection", Path(str(MODELS)) / "stories260k"
    few = ["--fine-tune", "300", "--epochs", "1", "--train", "400", "--test", "200"]
    assert real_text.main(["--file", str(file), "--llm", str(model), *few]) == 0
    output = capsys.readouterr().out
    assert "another weighing of the labels" in output
    results = json.loads((workshop / "logs/mera_real/sms_spam/results.json").read_text())
    assert {"constant class", "label bias, fitted", "Mahalanobis MERA"} <= results["methods"].keys()
    learned = {json.loads(line)["prompt"] for line in (workshop / "logs/mera_real/sms_spam/fine_tuning.jsonl").open()}
    assert len(learned) == 300
