"""What answers are worth: label probabilities, SPI, and figures that see classes, against independent references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reweighted import bootstrap_weights
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier

from lightning_steer.data.base import LabelledBatch
from lightning_steer.metrics import Answers, confusion
from lightning_steer.metrics.answers import label_probabilities
from lightning_steer.metrics.spi import QUANTILES, estimates, flip, spi, transitions

LABEL_OF = torch.tensor([0, 0, 1, 2])


def batch(y):
    return LabelledBatch([], torch.tensor(y), LABEL_OF, torch.arange(len(y)))


def scores(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_variants_of_a_label_add_up_and_the_rest_of_the_vocabulary_does_not_count():
    p = label_probabilities(scores([0.1, 0.2, 0.1, 0.0], [1e-9, 0, 2e-9, 1e-9]), LABEL_OF)
    torch.testing.assert_close(p, torch.tensor([[0.75, 0.25, 0.0], [0.25, 0.5, 0.25]], dtype=torch.float64))


def test_error_is_one_minus_the_right_labels_share():
    error = Answers().error(scores([0.1, 0.2, 0.1, 0.0], [0.1, 0.1, 0.1, 0.1]), batch([1, 0]))
    torch.testing.assert_close(error, torch.tensor([0.75, 0.5], dtype=torch.float64))


def test_tiny_probabilities_keep_their_digits():
    p = label_probabilities(torch.tensor([[-500.0, -500.0, -500.0, -501.0]]), LABEL_OF)
    torch.testing.assert_close(p[0, 2] / p[0, 1], torch.tensor(math.exp(-1.0)).double())


@pytest.mark.parametrize("bad", [[math.nan, -1.0, -1.0, -1.0], [-math.inf] * 4])
def test_scores_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or -inf"):
        label_probabilities(torch.tensor([bad]), LABEL_OF)


def test_labels_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="labels are 0 to 2, not 3 to 3"):
        Answers().error(scores([0.1, 0.2, 0.1, 0.0]), batch([3]))


def test_loss_falls_as_the_right_label_rises():
    right, wrong = scores([0.1, 0.1, 0.7, 0.1]), scores([0.4, 0.4, 0.1, 0.1])
    loss = Answers().loss(torch.stack([right, wrong]), batch([1]))
    torch.testing.assert_close(loss, -torch.tensor([[0.7], [0.1]], dtype=torch.float64).log())


@pytest.mark.parametrize(
    ("base", "steered", "expected"),
    [(0.5, 0.75, 0.5), (0.8, 0.6, -0.25), (0.5, 0.5, 0.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 1.0),
     (1.0, 0.0, -1.0), (0.108, 0.892, 0.784 / 0.892)],
)  # fmt: skip
def test_spi(base, steered, expected):
    assert float(spi(torch.tensor(base).double(), torch.tensor(steered).double())) == pytest.approx(expected)


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=200)
def test_spi_lies_between_minus_one_and_one_with_the_sign_of_the_change(base, steered):
    base, steered = base / 1000, steered / 1000
    value = float(spi(torch.tensor(base).double(), torch.tensor(steered).double()))
    assert -1 <= value <= 1
    assert np.sign(value) == np.sign(steered - base)


def rows(seed, n=200, classes=4, skew=(0.7, 0.2, 0.1, 0.0)):
    rng = np.random.default_rng(seed)
    truth, base = (rng.choice(classes, n, p=skew) for _ in range(2))
    return truth, np.where(rng.random(n) < 0.6, truth, base), np.where(rng.random(n) < 0.7, truth, base)


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_scikit_learns(seed):
    truth, answer, _ = rows(seed)
    matrix = confusion.confusion(torch.tensor(truth), torch.tensor(answer), 4)
    np.testing.assert_array_equal(matrix.numpy(), sk.confusion_matrix(truth, answer, labels=range(4)))
    settings = {"average": "weighted", "zero_division": 0}
    for ours, theirs in (
        (confusion.accuracy, sk.accuracy_score(truth, answer)),
        (confusion.balanced_accuracy, sk.balanced_accuracy_score(truth, answer)),
        (confusion.matthews, sk.matthews_corrcoef(truth, answer)),
        (confusion.f1, sk.f1_score(truth, answer, **settings)),
        (confusion.precision, sk.precision_score(truth, answer, **settings)),
    ):
        assert float(ours(matrix)) == pytest.approx(theirs, abs=1e-12)


def test_a_constant_answer_has_no_correlation_and_chance_balanced_accuracy():
    truth = torch.tensor([0] * 9 + [1])
    matrix = confusion.confusion(truth, torch.zeros(10), 2)
    assert float(confusion.accuracy(matrix)) == 0.9
    assert float(confusion.balanced_accuracy(matrix)) == 0.5
    assert float(confusion.matthews(matrix)) == 0


def test_weights_are_as_good_as_repeated_rows():
    truth, answer, _ = (torch.tensor(x) for x in rows(1))
    weights = bootstrap_weights(len(truth), 7)
    together = confusion.confusion(truth, answer, 4, weights)
    for w, matrix in zip(weights.long(), together, strict=True):
        again = confusion.confusion(truth.repeat_interleave(w), answer.repeat_interleave(w), 4)
        torch.testing.assert_close(matrix, again)


def test_quantiles_of_the_error_are_numpys():
    errors = torch.rand(101, generator=torch.Generator().manual_seed(0)).double()
    truth = torch.zeros(101, dtype=torch.long)
    quantiles = estimates(truth, truth, truth, errors, 1 - errors, 2)
    for q in QUANTILES:
        name = f"error_q{100 * q:02.0f}"
        assert quantiles[f"{name}_base"][0].value == np.quantile(errors.numpy(), q, method="inverted_cdf")
        assert quantiles[name][0].value == np.quantile(1 - errors.numpy(), q, method="inverted_cdf")


def everything(truth, base, steered):
    truth, base, steered = (torch.as_tensor(x) for x in (truth, base, steered))
    errors = ((base != truth).double(), (steered != truth).double())
    return {name: value[0] for name, value in estimates(truth, base, steered, *errors, 4).items()}


def test_estimates_hold_together():
    truth, base, steered = rows(3)
    estimates = everything(truth, base, steered)
    before, after = (base == truth).mean(), (steered == truth).mean()
    assert estimates["accuracy_base"].value == pytest.approx(before)
    assert estimates["accuracy"].value == pytest.approx(after)
    assert estimates["accuracy_change"].value == pytest.approx(after - before)
    assert estimates["spi"].value == pytest.approx((after - before) / (1 - before if after > before else before))
    assert sum(
        estimates[name].value
        for name in ("answers_fixed", "answers_broken", "answers_still_wrong", "answers_still_right")
    ) == pytest.approx(1)
    assert estimates["answers_fixed"].value - estimates["answers_broken"].value == pytest.approx(after - before)
    for name, estimate in estimates.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert (estimate.n, estimate.clusters) == (len(truth), None)


def test_the_interval_of_the_change_is_paired():
    """Two models that agree on most rows: far narrower than from two independent samples."""
    truth = np.zeros(400, dtype=int)
    base = (np.arange(400) % 2).astype(int)
    steered = np.where(np.arange(400) < 40, 0, base)
    change = everything(truth, base, steered)["accuracy_change"]
    assert 0 < change.low < 0.05 < change.high < 0.08


def test_intervals_cover_the_truth():
    """The change of accuracy over 200 simulated tests: 95 % give or take."""
    covered, rng = 0, np.random.default_rng(0)
    for _ in range(200):
        truth = np.zeros(250, dtype=int)
        base = rng.choice(2, 250, p=(0.6, 0.4))
        steered = np.where((base == 1) & (rng.random(250) < 0.3), 0, base)
        change = everything(truth, base, steered)["accuracy_change"]
        covered += change.low <= 0.12 <= change.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_class_flip_is_called_one():
    """.892 ham: from always spam to always ham, SPI .879 (EXPERIMENTS: +.87 on SMS spam)."""
    truth = torch.tensor([0] * 892 + [1] * 108)
    before, after = (confusion.confusion(truth, torch.full((1000,), k), 2) for k in (1, 0))
    assert float(spi(confusion.accuracy(before), confusion.accuracy(after))) == pytest.approx(0.879, abs=1e-3)
    assert flip(before, after)
    assert not flip(before, confusion.confusion(truth, truth, 2))
    assert not flip(after, before)  # nothing has risen


def test_transitions_part_the_rows():
    base, steered = torch.tensor([0, 0, 1, 1]).bool(), torch.tensor([0, 1, 0, 1]).bool()
    changes = transitions(base, steered)
    assert [name for i in range(4) for name, rows in changes.items() if rows[i]] == [
        "answers_still_wrong",
        "answers_fixed",
        "answers_broken",
        "answers_still_right",
    ]


def test_the_evaluation_gives_what_the_functions_give():
    g = torch.Generator().manual_seed(0)
    base, candidates = torch.randn(60, 4, generator=g), torch.randn(3, 60, 4, generator=g)
    y = torch.randint(3, (60,), generator=g)
    batch = LabelledBatch([], y, LABEL_OF, torch.arange(60))
    columns = {name: column.T for name, column in Answers().rows(base, candidates, batch).items()}
    by_measure = Answers().estimates(columns, None)
    p, q = label_probabilities(base, LABEL_OF), label_probabilities(candidates, LABEL_OF)
    for c in range(3):
        errors = (1 - p[torch.arange(60), y], 1 - q[c, torch.arange(60), y])
        expected = estimates(y, p.argmax(-1), q[c].argmax(-1), *errors, 3)
        for name, (estimate,) in expected.items():
            assert by_measure[name][c][:4] == pytest.approx(estimate[:4], nan_ok=True), name
            assert by_measure[name][c][4:] == estimate[4:], name
    assert set(Answers.headline) | set(Answers.also) <= by_measure.keys()


def test_the_constant_class_is_scikit_learns():
    g = torch.Generator().manual_seed(0)
    held, learned = torch.randint(3, (80,), generator=g), torch.randint(2, (50,), generator=g) + 1
    base = torch.randn(80, 4, generator=g)
    rows = Answers().rows(base, base[None], LabelledBatch([], held, LABEL_OF, torch.arange(80)))
    columns = {name: column.T for name, column in rows.items()}
    (control,) = Answers().controls(columns, {"truth": learned.double()[:, None]}).values()
    estimates = Answers().estimates(control, None)
    always = DummyClassifier(strategy="most_frequent").fit(np.zeros((50, 1)), learned).predict(np.zeros((80, 1)))
    before = columns["answer_base"][:, 0].long()
    assert estimates["accuracy"][0].value == pytest.approx(sk.accuracy_score(held, always))
    assert estimates["balanced_accuracy"][0].value == pytest.approx(sk.balanced_accuracy_score(held, always))
    assert estimates["error"][0].value == pytest.approx(1 - sk.accuracy_score(held, always))
    assert estimates["changed"][0].value == pytest.approx(float((before.numpy() != always).mean()))
    assert estimates["spi"][0].value == pytest.approx(
        float(spi(*(torch.tensor(sk.accuracy_score(held, answer)) for answer in (before, always))))
    )


def test_kl_is_from_the_unsteered_answer():
    base = scores([0.4, 0.4, 0.1, 0.1])
    rows = Answers().rows(base, torch.stack([base, scores([0.1, 0.1, 0.4, 0.4])]), batch([0]))
    assert rows["kl"][:, 0].tolist() == pytest.approx([0, 0.8 * math.log(4) + 0.2 * math.log(0.25)])
    assert rows["changed"][:, 0].tolist() == [0, 1]


def of(value, low=None, high=None):
    ends = {"low": value if low is None else low, "high": value if high is None else high}
    return {"value": value, **ends, "n": 100, "how": "a way"}


def test_the_verdict_says_flip_and_noise_and_nothing():
    good = {
        "answers_fixed": of(0.2),
        "answers_broken": of(0.01),
        "spi": of(0.5, 0.4, 0.6),
        "accuracy": of(0.8),
        "accuracy_base": of(0.6),
    }
    good["accuracy_change"] = of(0.2, 0.1, 0.3)
    good |= {"balanced_accuracy_change": of(0.2, 0.1, 0.3), "mcc_change": of(0.4, 0.2, 0.6)}
    assert "SPI +0.50" in Answers().verdict(good, {})
    assert Answers().warnings(good, {}) == []
    assert "This is a class flip" in Answers().warnings({**good, "mcc_change": of(-0.1, -0.2, 0.0)}, {})[0]
    for unsure in (of(0.1, -0.01, 0.2), of(-0.1, -0.3, 0.01), of(0.1, math.nan, math.nan)):
        (sentence,) = Answers().warnings({**good, "balanced_accuracy_change": unsure}, {})
        assert "This may be a class flip" in sentence
    assert "noise" in Answers().warnings({**good, "accuracy_change": of(0.2, -0.1, 0.3)}, {})[0]
    draws = {"value": 0.0, "low": -0.1, "high": 0.6, "n": 20, "p": 2 / 21}
    (reached,) = Answers().warnings(good, {"random_control": {"spi": draws}})
    assert "1 of 20 random directions of equal norm reach 0.500 or more" in reached
    assert Answers().warnings(good, {"random_control": {"spi": draws | {"high": 0.4, "p": 1 / 21}}}) == []
    (constant,) = Answers().warnings({**good, "accuracy_over_constant_class": of(0.02, -0.01, 0.05)}, {})
    assert "most frequent class may do as well: the accuracy is 2.0 points [-1.0, 5.0] above" in constant
    assert Answers().warnings({**good, "accuracy_over_constant_class": of(0.02, 0.01, 0.03)}, {}) == []
    assert "No answer" in Answers().verdict({**good, "answers_fixed": of(0.0), "answers_broken": of(0.0)}, {})
