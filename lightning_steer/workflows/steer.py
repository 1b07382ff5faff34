"""Steer from pairs: search for layer and strength within a budget of damage, then measure the choice on other pairs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_steer import numbers
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import ContrastPair, Pairs
from lightning_steer.data.pair_module import TEST
from lightning_steer.data.text import read
from lightning_steer.errors import UserError
from lightning_steer.lint import lint_pairs
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules import cautions
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.report import card as report_card
from lightning_steer.resources import resource_path
from lightning_steer.selection.grid import Grid, Setting, none_will_do
from lightning_steer.selection.grid import reason as grid_reason
from lightning_steer.selection.rule import Choice, Selection
from lightning_steer.vectors import SteeringVector
from lightning_steer.vectors.steer import joined
from lightning_steer.workflows import certificate
from lightning_steer.workflows.beside import Beside
from lightning_steer.workflows.fit import backbone, check_method, run
from lightning_steer.workflows.search import damage, own_text
from lightning_steer.workflows.swap_control import swap_sentences
from lightning_steer.workflows.trials import Trial, compared, search_with
from lightning_steer.workflows.unfinished import Unfinished, search_settings

REFERENCE_TEXTS = "configs/reference_texts.txt", "configs/cache_texts.txt"
"""Texts that ship: English ones, and ones of the pocket language."""
SHARES = 0.4, 0.3
"""Shares of the pairs that are fitted to and chosen on in a search, which looks at many more settings than a fit."""
EPOCHS = 100
"""Passes over the pairs of a method that is trained through the output, unless others are asked for."""
LEAST = 4
"""Pairs below which there is no search; a report on fewer than ten says first that it shows nothing."""


class Steered(NamedTuple):
    """What a search has come to."""

    vector: SteeringVector
    grid: Grid
    setting: Setting
    reason: str
    """Why this layer and this strength."""
    held_out: list[str]
    """Prompts that were neither fitted to nor chosen on, each once."""
    others: Sequence[Trial] = ()
    """The searches with other methods, the better ones first."""


class AlreadyChosen(Selection):
    """The strength that a search has chosen already, of those that it tried.

    Args:
        index: which of them.
        reason: why this one.
        budget: the damage that it keeps within.
    """

    searched = True

    def __init__(self, index: int, reason: str, budget: float) -> None:
        self.index, self.reason, self.budget = index, reason, budget

    def choose(self, strengths: list[float], *_rows: object, **_more: object) -> Choice:
        """Return the strength of the search; it has no range, since the search is not done again on other rows."""
        return Choice(self.index, math.nan, math.nan, math.nan, self.reason)


def steer(
    llm: LLM | str,
    pairs: Sequence[ContrastPair],
    layers: Sequence[int] | Literal["auto"] = "auto",
    method: Callable[[int], SteeringMethod] | Sequence[Callable[[int], SteeringMethod]] = MeanDifference,
    strengths: Sequence[float] | None = None,
    budget: float = 0.1,
    reference_texts: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = False,
    full_grid: bool = False,
    epochs: int = EPOCHS,
    certify: bool = False,
    beside: Sequence[SteeringVector] = (),
) -> SteeringVector:
    """Choose the layer and the strength with the largest effect whose damage stays in a budget, and judge the choice.

    Two fifths of the pairs are fitted to, three tenths are chosen on, and the rest judges; half of the reference texts
    chooses, and the other half judges. With eight layers or more the search goes from coarse to fine, at a third of
    the cost of all settings or less.

    Args:
        llm: the model, loaded or not; or a hub name or folder.
        pairs: at least ten, and twenty are enough to start; from four on it runs, and its report says that it shows
            nothing.
        layers: decoder blocks to try, counted from 0, negative from the end; all of them if ``auto``.
        method: makes an unfitted method from a width: a class of ``lightning_steer.methods``, or a partial of one. Of
            several the one with the largest effect is taken.
        strengths: those to try, in the method's units, from the weakest to the strongest; None for the method's own
            (nine from .25 to 6 as a rule, and larger ones where 6 is the best).
        budget: the most that unrelated text may change, in nats per token (KL).
        reference_texts: at least two texts that have nothing to do with the pairs; None for English ones that ship, or
            for those of the pocket models' language.
        seed: draws the split.
        progress: show Lightning's progress bars.
        full_grid: try every layer at all strengths. With fewer than eight layers that is always done; with more, the
            last layer comes first, then some others, then what lies near the best. Methods that are trained through
            the output, such as LearnedVector, are trained by successive halving: every layer a little, the better half
            of them on, until one is left. With ``full_grid`` they are trained to the end at every layer.
        epochs: passes over the pairs, for methods that are trained through the output.
        certify: say by how much the share of pairs whose positive is the likelier continuation improves at least, at a
            risk of 5 %, from the pairs that played no part in the choice.
        beside: vectors that steer, too, at the strengths of their cards. The layer and the strength are chosen for what
            the new vector adds to them, within a budget for all together; the card says what each does alone, what they
            do together, and whether that is more or less than the sum. The new vector is fitted and judged alone.

    Returns:
        The vector. Its card says what was chosen and why, what it does and what else it does; print it to see it.

    Raises:
        ValueError: no setting helps within the budget, or the pairs or texts cannot be read.
    """
    settings = layers, method, strengths, budget, reference_texts, seed, progress, full_grid, epochs, certify
    return searched(llm, pairs, *settings, beside=beside).vector


def searched(
    llm: LLM | str,
    pairs: Sequence[ContrastPair],
    layers: Sequence[int] | Literal["auto"] = "auto",
    method: Callable[[int], SteeringMethod] | Sequence[Callable[[int], SteeringMethod]] = MeanDifference,
    strengths: Sequence[float] | None = None,
    budget: float = 0.1,
    reference_texts: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = False,
    full_grid: bool = False,
    epochs: int = EPOCHS,
    certify: bool = False,
    folder: Path | None = None,
    unfinished: Path | None = None,
    lines: bool = False,
    beside: Sequence[SteeringVector] = (),
) -> Steered:
    """:func:`steer` with the table that was searched.

    Args as there; ``folder`` takes the whole report, and the folder ``unfinished`` what is measured while it is: a call
    with the same pairs, texts and model that was stopped goes on from there. ``lines`` tell how far a long search is.
    """
    kinds = [method] if callable(method) else list(method) if isinstance(method, (list, tuple)) else []
    for kind in kinds or [method]:  # what is neither is refused as one method
        check_method(kind, () if strengths is None else strengths)
    if isinstance(pairs, (str, Path)) or len(pairs) < LEAST:
        raise UserError(
            f"a search needs at least {LEAST} pairs, some to fit to, some to choose on and some to judge, not "
            + (
                f"the file {pairs}: read it with read_pairs"
                if isinstance(pairs, (str, Path))
                else f"{len(pairs)}: add pairs"
            )
        )
    numbers.check({"budget": budget, "seed": seed, "epochs": epochs, "strengths": list(strengths or ())})
    if layers != "auto" and (isinstance(layers, (str, int)) or not layers):
        raise UserError(f'layers must be a list with at least one block, such as [2, 3], or "auto", not {layers!r}')
    if strengths is not None and not strengths:
        raise UserError("strengths is empty: give at least one to try, or None for the method's own")
    numbers.distinct("strengths", list(strengths or ()))
    loaded = LLM(llm) if isinstance(llm, str) else llm
    loaded.load()
    model = backbone(loaded, list(range(loaded.decoder.depth)) if layers == "auto" else list(layers))
    texts = reference_texts_for(model, reference_texts)
    others = Beside.of(model, beside)
    choosing = texts[::2]
    others.check_budget(model, choosing, budget)
    written = own_text(model, choosing)
    judging = [texts[1::2], own_text(model, texts[1::2], without=[*choosing, *written])]
    data = BehaviourDataModule(Pairs(pairs, [*judging[0], *judging[1]]), None, False, *SHARES, seed=seed)
    data.setup()
    lint = lint_pairs(pairs, tokenizer=loaded.tokenizer)
    settings = search_settings(kinds, model, [seed, SHARES, [*pairs], texts, others.content])
    known = [Unfinished(unfinished and unfinished / f"{number}.json", one) for number, one in enumerate(settings)]
    trials = search_with(
        kinds, model, data, strengths, budget, choosing, written, full_grid, epochs, known, lines, others.edits
    )
    trial = trials[0]
    grid, setting = trial.grid, trial.setting
    if setting is None:
        raise none_will_do(grid, budget)
    reason = grid_reason(grid, setting, budget, trial.fluency.passed_over(grid, setting)) + compared(trials)
    if others.name:
        reason += f"; the effect is what it adds to {others.name}, and the change that of all together"
    at_layer = backbone(loaded, grid.layers[setting.layer])
    (site,) = at_layer.sites
    steering = {site: partial(trial.search.methods[site], strength=grid.strengths[setting.strength])}
    data.notes = [*cautions.few_pairs(data.parts), *lint.sentences, *swap_sentences(lint, at_layer, data, steering)]
    rule = AlreadyChosen(setting.strength, reason, budget)
    module = SteeringAdaptor(at_layer, trial.method, BehaviourEffect(), grid.strengths, rule, learning_curve=False)
    if unfinished is not None:  # the report is written into a folder of passage
        module.experiment = unfinished.resolve().parents[1].name
    vector = run(module, data, epochs if trial.search.trained else 1, progress, folder)
    edits = {site: partial(site_method, strength=module.strength) for site, site_method in module.methods.items()}
    report, card = module.report, vector.card
    if certify:
        bound = certificate.certify(module)
        card = card._replace(certificate={"reason": report["choice"], "bound": bound})
    if not (kl := float(damage(at_layer, judging, joined(others.edits, edits)))) <= budget:
        report["warnings"].insert(
            0,
            f"On texts that played no part in the choice, unrelated text or the model's own changed by {kl:.3f} nats "
            f"per token, more than the budget of {budget:g}.",
        )
        card = card._replace(warnings=report["warnings"])
    if others.name:
        judged = [ContrastPair(one.prompt, one.positive, one.negative) for one in data.parts[TEST]]
        report["beside"] = others.record(at_layer, edits, judged, data.clusters[TEST], kl)
        card = card._replace(warnings=[*report["warnings"], report["beside"]["sentence"]])
    if folder is not None and card != vector.card:
        report_card.write(folder, report)
    vector = vector._replace(card=card)
    held_out = list(dict.fromkeys(example.prompt for example in data.parts[TEST]))
    return Steered(vector, grid, setting, reason, held_out, trials[1:])


def reference_texts_for(llm: LLM, texts: Sequence[str] | None) -> list[str]:
    """Return the reference texts, or those that ship as far as the tokenizer knows their words; raises ValueError."""
    if texts is not None:
        if isinstance(texts, str) or len(set(texts)) < 2:
            raise UserError("reference_texts must be at least two different texts: one half chooses, the other judges")
        return list(dict.fromkeys(texts))
    unknown = llm.tokenizer.unk_token_id
    for path in REFERENCE_TEXTS:
        every = [text for (text,) in read(Path(resource_path(path)), ("text",))]
        known = [text for text in every if unknown is None or unknown not in llm.tokenizer(text)["input_ids"]]
        if 2 * len(known) > len(every):
            return known
    raise UserError(
        f"the tokenizer of {llm.name} does not know the words of the texts that ship: give reference_texts in its own "
        "language, at least two"
    )
