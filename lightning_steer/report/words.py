"""What measures are called for people; a measure without an entry keeps its own name."""

from lightning_steer.report.figures import NAMES

WORDS = {
    **NAMES,
    "mean60": "accuracy over all attributes",
    "output_difference": "change of the whole output (total variation)",
    "strength": "chosen strength",
    "certified_bound": "certified improvement, at least",
    "edited": "rows that were edited at all",
    "bypass": "share of the evidence that by-passes the site",
    "cosine_class": "cosine of the mean shift with the class difference",
    "cosine_pair": "cosine of each shift with its own pair's difference",
    # neutral text
    "neutral_kl": "drift on neutral text, KL (nats per token)",
    "neutral_probability_lost": "drift on neutral text, share of a token's probability lost (1 - exp(-KL))",
    "neutral_kl_p95": "drift on neutral text, 95th percentile over tokens",
    "perplexity_ratio": "perplexity of neutral text, steered : unsteered",
    "entanglement": "root mean square change of other tasks' accuracy",
    # answers
    "spi": "SPI, share of the possible gain",
    "mcc": "MCC, Matthews correlation",
    "f1": "F1, mean over classes by their share",
    "error": "error, 1 - p(right label)",
    "accuracy_base": "accuracy, unsteered",
    "balanced_accuracy_base": "balanced accuracy, unsteered",
    "mcc_base": "MCC, unsteered",
    "error_base": "error, unsteered",
    "accuracy_change": "change of accuracy",
    "accuracy_over_constant_class": "accuracy above that of always the most frequent class",
    "balanced_accuracy_change": "change of balanced accuracy",
    "mcc_change": "change of MCC",
    "error_change": "change of the error",
    **{f"{name}_change": f"change: {NAMES[name]}" for name in ("target", "kept", "others", "exact")},
    "0->1": "wrong answers made right",
    "1->0": "right answers made wrong",
    "0->0": "answers wrong before and after",
    "1->1": "answers right before and after",
    "kl": "KL to the unsteered answer (nats)",
    "changed": "answers that changed",
    **{f"error_q{q:02}": f"{q} % quantile of the error" for q in (5, 25, 50, 75, 95)},
    # StereoSet
    "p_stereotype": "stereotype chosen",
    "p_anti": "anti-stereotype chosen",
    "p_unrelated": "unrelated chosen",
    "p_stereotype_change": "change: stereotype chosen",
    "p_anti_change": "change: anti-stereotype chosen",
    "p_unrelated_change": "change: unrelated chosen",
    "intended": "moved as meant",
    "opposed": "moved the other way",
    "collateral": "unrelated moved",
    "ss": "SS, stereotype score (%)",
    "lms": "LMS, language modelling score (%)",
    "icat": "ICAT, of both (%)",
    "ss_change": "change of SS",
    "lms_change": "change of LMS",
    "icat_change": "change of ICAT",
    "icat_lms_part": "of which by LMS",
    "icat_ss_part": "of which by SS",
    "stereotype_change": "change of the stereotypes' score (nats per token)",
    "anti_change": "change of the anti-stereotypes' score (nats per token)",
    "unrelated_change": "change of the unrelated sentences' score (nats per token)",
    # behaviours
    "wanted": "wanted continuation likelier",
    "wanted_change": "change of the wanted continuation being likelier",
    "preference": "positive continuation likelier",
    "preference_change": "change of the positive continuation being likelier",
    "margin": "margin, positive - negative (nats per token)",
    "margin_change": "change of the margin (nats per token)",
    "positive": "score of positives (nats per token)",
    "negative": "score of negatives (nats per token)",
    "positive_change": "change of positives (nats per token)",
    "negative_change": "change of negatives (nats per token)",
    "auc": "AUC, positives against negatives",
    "auc_change": "change of AUC",
    "cohens_d": "Cohen's d, positives against negatives",
    "cohens_d_change": "change of Cohen's d",
}


HIGHER = (
    *("target", "others", "exact", "mean60", "spi", "accuracy", "balanced_accuracy", "mcc", "f1", "precision"),
    *("recall", "0->1", "wanted", "wanted_change", "intended", "fidelity", "lms", "icat", "icat_change"),
    *(f"{name}_change" for name in ("others", "exact", "target", "accuracy", "balanced_accuracy", "mcc")),
    *("accuracy_over_constant_class", "certified_bound"),
)
LOWER = (
    *("kept", "drift_kl", "drift_flip", "error", "error_change", "1->0", "kl", "opposed", "collateral", "p_unrelated"),
    *("neutral_kl", "neutral_kl_p95"),
)
BETTER = {**dict.fromkeys(HIGHER, "higher"), **dict.fromkeys(LOWER, "lower"), "perplexity_ratio": "near 1"}
"""In which direction a measure is good; of others that depends on what was meant."""


def word(name: str) -> str:
    """A measure's name for people."""
    return WORDS.get(name, name.replace("_", " "))
