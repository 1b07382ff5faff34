"""What the design cannot show, for the page."""

from collections.abc import Sequence

from lightning_steer.studies.arena import declared, language, toy
from lightning_steer.studies.arena.situations import listed


def text(minutes: Sequence[float]) -> list[str]:
    """Return what the design cannot show, and what it cost."""
    scale = language.LanguageScale()
    return [
        "## What this design cannot show\n",
        "- It has two pocket models of five layers, of one family, in one small language. A finding here tells you "
        "which "
        "method to try first on a large model. It is no result about a large model.\n"
        f"- It tries layers {listed([str(layer) for layer in scale.layers])}, half of each method's strengths and two "
        f"more near the budget. A cell has {scale.pairs} pairs (labelling tasks a few less), three tenths of them held "
        "out, so a single cell says little.\n"
        "- Trained methods are trained on what is measured, the margin of such pairs. So their lead says less than the "
        "same lead of a closed form would. They also cost a backward pass of the whole model. They had "
        f"{scale.training_steps} steps on the pocket models and {toy.ToyScale().training_steps} on the toy, at one "
        "learning rate. No method's own settings were searched.\n"
        f"- The table is of one seed. The {len(declared.KEPT + declared.AGAIN_SEEDS)} seeds that were kept back judge "
        "the "
        "declared contrasts on the base model, not the whole table. Tasks of one language share its grammar, so ten "
        "tasks tell less than ten independent ones.\n"
        "- Ranks compare what a search chose. A method with a smaller effect at less damage is not worse; the column "
        "of "
        "equal effect compares damage.\n"
        "- The prompt baseline has examples and no instruction. Gates, compositions, and methods on several layers at "
        "once were not compared. Head steering shifts the heads of one layer. The toy has no heads: there it shifts "
        "the whole row.\n",
        f"Processor time: {minutes[0]:.0f} minutes for the table, {minutes[1] + minutes[2]:.0f} for the verdicts. The "
        "longer form (`--tuned` with all tasks; more kept seeds; every layer) costs half a minute a cell.\n",
    ]
