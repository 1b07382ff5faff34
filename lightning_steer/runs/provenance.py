"""Where a fitted result comes from: network, method, sites, positions and rows, by content; compared at every use.

A checkpoint carries its record. ``test``, ``validate``, ``predict``, ``export``, a resumed ``fit`` and responses make
the record of what they were given, and refuse in one sentence a result with another one, unless ``accept_mismatch`` is
set; the report then names what differs.
"""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from torch import Tensor, nn

from lightning_steer.cache import fingerprints
from lightning_steer.cache.files import digest
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import described
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.networks.backbone import Backbone
from lightning_steer.runs.row_keys import INPUT, Limits, part_rows, phrase

KEY = "provenance"
"""Entry of a checkpoint that holds the record, as JSON."""
HIDDEN = ("configuration", "weights", "tokenizer")
"""Of these the sha256 is compared, and its first digits are shown."""


@dataclass(frozen=True)
class Provenance:
    """What a fitted result depends on; plain values, all of which JSON knows."""

    model: str
    """The network's name, which is shown and not compared: the same weights under another name are as good."""
    configuration: str | None
    """sha256 of the network's configuration; None in a network that has none."""
    weights: str | None
    """sha256 of all weights in memory, or of their files where some are offloaded."""
    precision: str | None
    """What the weights are in memory, for example ``float32``."""
    tokenizer: str | None
    """sha256 of vocabulary and rules."""
    method: str
    """The method's class."""
    settings: dict[str, Any]
    """Its arguments beside the width."""
    sites: list[str]
    positions: str
    """Which tokens are steered."""
    read_positions: str
    """Which tokens are read when fitting."""
    prompts: str
    """How prompts are written and answers scored: chat template, system message, normalisation, own words."""
    task: str
    """What the data module calls it, which is shown and not compared: its rows are."""
    fitted_rows: list[str]
    """A key of each row that was fitted to, in order; of rows without end, one of what generates them."""
    selection_rows: list[str]
    """The same of the rows that the strength, or the best checkpoint, was chosen on."""
    files: str | None = None
    """sha256 of the files that the weights were read from, by which they are compared in another precision."""

    def as_json(self) -> str:
        """One line, as a checkpoint holds it."""
        return json.dumps(asdict(self), sort_keys=True, default=repr)

    def differences(self, other: "Provenance") -> list[str]:
        """What differs, each with this record's value and the other's; empty if nothing does."""
        phrases = []
        for name in (field.name for field in fields(self)):
            mine: Any = getattr(self, name)
            its: Any = getattr(other, name)
            if name in ("model", "task", "files") or _plain(mine) == _plain(its):
                continue
            if name == "weights" and self.precision != other.precision and self.files is not None:
                if self.files == other.files:
                    continue  # the same weights in another precision are other bits; the precision is named
                mine, its = self.files, other.files
            if name.endswith("_rows"):
                mine, its = f"{phrase(mine)} of {self.task!r}", f"{phrase(its)} of {other.task!r}"
            elif name in HIDDEN:
                mine, its = f"{_short(mine)} of {self.model}", f"{_short(its)} of {other.model}"
            elif name == "sites":
                mine, its = " and ".join(mine), " and ".join(its)
            phrases.append(f"{name.replace('_', ' ')} {mine}, not {its}")
        return phrases

    def seen(self, rows: Iterable[str]) -> tuple[int, int]:
        """How many of these rows have an input that the method was fitted to, and that its strength was chosen on."""
        known = [{row[:INPUT] for row in keys} for keys in (self.fitted_rows, self.selection_rows)]
        inputs = [row[:INPUT] for row in rows]
        return sum(row in known[0] for row in inputs), sum(row in known[1] for row in inputs)


def read(text: Any, source: object) -> Provenance:
    """The record in a checkpoint's entry; raises ValueError."""
    try:
        return Provenance(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{source} does not say what it was fitted to: it is damaged or of another version; fit again, or go on "
            "all the same with --accept_mismatch true"
        ) from error


def of(
    backbone: Backbone,
    method: str,
    settings: Mapping[str, Any],
    data: SteeringDataModule,
    limits: Limits | None = None,
) -> Provenance:
    """The record of what is fitted to ``data`` on this network, which is loaded. Hashes all weights once.

    ``limits`` say how much of the data is read; None for what the data's trainer reads.
    """
    prompts = ""
    if isinstance(backbone, GeneratedAnswerBackbone):
        prompts, backbone = f"own words, {backbone.answering.max_new_tokens} tokens; ", backbone.plain
    positions = read_positions = ""
    if isinstance(backbone, LLM):
        positions, read_positions = described(backbone.positions), described(backbone.read_positions)
        template = _short(digest(str(backbone.tokenizer.chat_template).encode()))
        prompts += f"chat {template}, system message {backbone.system!r}" if backbone.chat else "plain"
        prompts += f"; scores normalized by {backbone.normalize}"
    how = {"sites": list(backbone.sites), "positions": positions, "read_positions": read_positions, "prompts": prompts}
    return of_training(of_network(backbone), method, settings, data, limits=limits, **how)


def of_training(
    network: Mapping[str, Any],
    method: str,
    settings: Mapping[str, Any],
    data: SteeringDataModule,
    sites: Sequence[str] = (),
    limits: Limits | None = None,
    **how: str,
) -> Provenance:
    """The record of whatever is fitted to ``data``: with :func:`of_network`, or with the network that is trained.

    What is not named in ``network`` or ``how`` does not apply.
    """
    rows = part_rows(data, limits)
    return Provenance(
        **{**dict.fromkeys(("configuration", "weights", "precision", "tokenizer")), **network},
        method=method,
        settings=_plain(dict(settings)),
        sites=list(sites),
        **{**dict.fromkeys(("positions", "read_positions", "prompts"), ""), **how},
        task=data.task or type(data).__name__,
        fitted_rows=rows[0],
        selection_rows=rows[1],
    )


def of_network(backbone: Backbone) -> dict[str, Any]:
    """The entries of a record that tell which network this is; it is loaded."""
    if not isinstance(backbone, LLM):
        return {"model": backbone.name, "weights": fingerprints.of_memory(backbone), "precision": precision(backbone)}
    return {
        "model": backbone.llm,
        "configuration": fingerprints.of_configuration(backbone.model.config),
        "weights": fingerprints.of_memory(backbone.model) or fingerprints.of_files(backbone.llm, backbone.loading[1]),
        "precision": precision(backbone.model),
        "files": fingerprints.of_files(backbone.llm, backbone.loading[1], backbone.model),
        "tokenizer": fingerprints.of_tokenizer(backbone.tokenizer),
    }


def settings_of(method: SteeringMethod) -> dict[str, Any]:
    """Return the arguments that a method was made with, except its width; of methods inside it name and arguments."""
    names = [name for name in inspect.signature(type(method)).parameters if name != "width"]
    return {name: _argument(getattr(method, name)) for name in names}


def _argument(value: Any) -> Any:
    if isinstance(value, nn.ModuleList):
        return [_argument(part) for part in value]
    if isinstance(value, SteeringMethod):
        return {"name": type(value).__name__, "settings": settings_of(value)}
    return value


def overlap(saved: Provenance, rows: Sequence[str]) -> list[str]:
    """Return a sentence if held-out rows were fitted to or chosen on; else nothing."""
    fitted, chosen = saved.seen(rows)
    if not fitted + chosen:
        return []
    return [f"{fitted} of the {len(rows)} held-out rows were fitted to and {chosen} chosen on, not 0 and 0"]


def compared(source: object, differences: Sequence[str], accept: bool) -> list[str]:
    """A sentence for a report if differences are accepted, none if there are none.

    Raises:
        ValueError: there are some, and they are not accepted.
    """
    if not differences:
        return []
    if not accept:
        raise UserError(
            f"{source} was fitted to something else ({'; '.join(differences)}): give the settings and files that it "
            "was fitted with, fit again, or go on all the same with --accept_mismatch true"
        )
    return [f"{source} was fitted to something else: {difference}." for difference in differences]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=repr))


def _short(fingerprint: str | None) -> str:
    return "unknown" if fingerprint is None else fingerprint[:12]


def precision(network: nn.Module) -> str | None:
    """What a network's weights are in memory."""
    kinds = [p.dtype for p in cast(Iterable[Tensor], network.parameters()) if p.dtype.is_floating_point]
    return str(kinds[0]).removeprefix("torch.") if kinds else None
