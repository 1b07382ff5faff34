"""Readable labels of measures; a measure without an entry keeps its name."""

from lightning_steer.report.figures import NAMES

WORDS = {
    **NAMES,
    "mean_accuracy": "accuracy over all attributes",
    "output_difference": "change of the whole output (total variation)",
    "strength": "chosen strength",
    "certified_bound": "certified improvement, at least",
    "intervention_rate": "share of rows that the method moved",
    "gate_power": "share of rows to be steered that the gate steers",
    "gate_bound": "share of rows to be left alone that the gate steers",
    "bypass": "share of the evidence that by-passes the site",
    "cosine_class": "cosine of the mean shift with the class difference",
    "cosine_pair": "cosine of each shift with its own pair's difference",
    # reference texts
    "reference_kl": "drift on reference texts, KL (nats per token)",
    "reference_probability_lost": "drift on reference texts, share of a token's probability lost (1 - exp(-KL))",
    "reference_kl_p95": "drift on reference texts, 95th percentile over tokens",
    "perplexity_ratio": "perplexity of reference texts, steered : unsteered",
    "text_nats": "text at held-out prompts, nats per token under the unsteered model",
    "text_repetition": "text at held-out prompts, share of words that repeat one of the four before",
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
    **{
        f"{name}_change": f"change: {NAMES[name]}"
        for name in ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match")
    },
    "answers_fixed": "wrong answers made right",
    "answers_broken": "right answers made wrong",
    "answers_still_wrong": "answers wrong before and after",
    "answers_still_right": "answers right before and after",
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
    "intended_preferred_change": "change of the intended continuation being likelier",
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


def word(name: str) -> str:
    """Return a measure's readable label."""
    return WORDS.get(name, name.replace("_", " "))
