"""Responses to a prompts file: unsteered, steered at several strengths, and of another model.

One class and one file: Lightning calls its methods in turn, and they share what was written.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_steer import numbers
from lightning_steer.data.base import data_of
from lightning_steer.data.prompts import Prompt, PromptsDataModule
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit, edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import described
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.modules import fitted
from lightning_steer.modules.sampling import Sampler
from lightning_steer.numbers import ranged
from lightning_steer.report.files import write_text
from lightning_steer.report.responses import side_by_side
from lightning_steer.runs import provenance, saving


class Responses(L.LightningModule):
    """``predict`` writes ``responses.jsonl`` and ``responses.md`` into the run's folder.

    Each part (some prompts under one system prompt, at all strengths) is written atomically, so a killed run
    resumes without a lost or repeated line. A line has ``id``, ``prompt``, ``system``,
    ``model``, ``strength`` (null: unsteered), ``sample`` and ``response``.

    Args:
        backbone: the model, with the layers and tokens that are steered.
        steering: what steers: ``best.ckpt`` of a run of ``fit``, a vector file (``.safetensors``), or plain vectors
            (``.safetensors``, ``.pt``); null for unsteered responses only.
        method: the method that the checkpoint or vector file is of; null for plain vectors.
        strengths: the strengths of the steered responses.
        tuned: another model, whose unsteered responses stand beside; null for none.
        max_new_tokens: the longest response, in tokens.
        temperature: 0 takes the likeliest token; above 0 tokens are drawn, the more evenly the higher it is.
        top_p: only the likeliest tokens that reach this probability together are drawn from.
        samples: responses to each prompt; more than one needs a temperature.
        seed: of the drawing; a response does not depend on the batch it is drawn in.
    """

    needs_checkpoint = False  # ``steering`` holds everything that is fitted
    accept_mismatch = False  # go on with a checkpoint of another network, site or method; responses.md then says so

    @ranged
    def __init__(
        self,
        backbone: LLM,
        steering: str | None = None,
        method: Callable[[int], SteeringMethod] | None = None,
        strengths: Sequence[float] = (1.0,),
        tuned: LLM | None = None,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        samples: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        numbers.distinct("strengths", strengths)
        if top_p == 0:
            raise UserError("top_p lies in (0, 1], and 0 leaves no token to draw")
        if samples > 1 and temperature == 0:
            raise UserError(f"{samples} samples at temperature {temperature:g}: without a temperature all are the same")
        if steering is not None and not strengths:
            raise UserError("strengths is empty: give at least one, or leave steering out")
        self.backbone, self.tuned, self.steering, self.method = backbone, tuned, steering, method
        self.strengths = list(strengths) if steering is not None else []
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p
        self.samples, self.seed = samples, seed
        self.maps = nn.ModuleDict()
        self.methods: dict[str, SteeringMethod] = {}
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        self.mismatches: list[str] = []

    def configure_model(self) -> None:
        """Load the models and the fitted maps; called by the trainer."""
        if self.backbone.sites:
            return
        for llm in (self.backbone, self.tuned):
            if llm is not None:
                llm.check(data_of(self.trainer, PromptsDataModule))
                llm.load()
                llm.requires_grad_(False).eval()
                self._check(llm)
        if self.steering is not None:
            self._compare(self.steering)
            widths = {site: self.backbone.width(site) for site in self.backbone.sites}
            self.methods = fitted.load(self.steering, self.method, widths)
            self.maps = nn.ModuleDict({site.replace(".", "/"): method for site, method in self.methods.items()})
            self._try()

    def _check(self, llm: LLM) -> None:
        """Reject prompts that this model cannot answer, before anything is written."""
        data = data_of(self.trainer, PromptsDataModule)
        systems = data.systems
        for system in systems if not llm.chat else []:
            if system is not None:
                raise UserError(f"the system prompt {system[:40]!r} is part of a chat: set chat of {llm.llm}")
        if self.max_new_tokens >= llm.longest:
            raise UserError(
                f"max_new_tokens {self.max_new_tokens} must be below the {llm.longest} tokens that {llm.llm} reads"
            )
        for llm.system in systems:
            for prompt in data.prompts:
                try:
                    llm.prompts([prompt.text], self.max_new_tokens)
                except ValueError as error:
                    raise UserError(f"prompt {prompt.id} of {data.file}: {error}") from error

    def _try(self) -> None:
        """Steer the start of the first prompt, so that too large a strength is rejected before files are written."""
        llm, data = self.backbone, data_of(self.trainer, PromptsDataModule)
        ids = torch.tensor(llm.prompts([data.prompts[0].text], 1), device=llm.device)[:, :8]
        edits = {site: self._at(method.to(llm.device), 1) for site, method in self.methods.items()}
        with torch.no_grad(), edit(llm.model, edits):
            llm.model(ids.expand(1 + len(self.strengths), -1), use_cache=False)

    def _compare(self, path: str) -> None:
        """Reject a checkpoint that was fitted on another network, at other sites or with another method."""
        if self.method is not None and Path(path).suffix == ".safetensors":
            self.mismatches = [f"That the model's weights are those that {path} was fitted on was not compared."]
            return
        if self.method is None or Path(path).suffix != ".ckpt":
            self.mismatches = [f"{path} does not say what it was fitted to: model, layer and tokens were not compared."]
            return
        saved = provenance.read(saving.load(Path(path)).get(provenance.KEY), path)
        method = self.method(self.backbone.width(self.backbone.sites[0]))
        current = replace(
            saved,
            **provenance.of_network(self.backbone),
            method=type(method).__name__,
            settings=provenance.settings_of(method),
            sites=list(self.backbone.sites),
            positions=described(self.backbone.positions),
        )
        self.mismatches = provenance.compared(path, saved.differences(current), self.accept_mismatch)

    # ---- parts

    def on_predict_start(self) -> None:
        """Resume with the existing parts, if they are of the same run."""
        data = data_of(self.trainer, PromptsDataModule)
        if not isinstance(data, PromptsDataModule):
            raise UserError(f"responses are to the prompts of a PromptsDataModule, not of a {type(data).__name__}")
        self.folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            self._begin(data)
        self.trainer.strategy.barrier("begun")

    def _begin(self, data: PromptsDataModule) -> None:
        settings, record = json.dumps(self._settings(data), indent=1), self.folder / "parts" / "settings.json"
        if record.is_file() and record.read_text(encoding="utf-8") != settings:
            print(f"The responses in {self.folder} were of other settings: starting anew.")
            for path in (self.folder / "parts").glob("*.jsonl"):
                path.unlink()
        write_text(record, settings)
        missing = data.parts - sum(self._path(number).is_file() for number in range(data.parts))
        if 0 < missing < data.parts:
            print(f"Going on: {missing} of {data.parts} parts are left.")

    def _settings(self, data: PromptsDataModule) -> dict[str, Any]:
        """Return all settings that the responses depend on."""
        models = [] if self.tuned is None else [self.tuned]
        files = [data.file, *([] if self.steering is None else [self.steering])]
        return {
            "models": [
                [
                    provenance.of_network(llm),
                    llm.layers,
                    llm.part,
                    repr(vars(llm.positions)),
                    llm.chat,
                    str(llm.loading),
                ]
                for llm in (self.backbone, *models)
            ],
            "method": [
                [site, type(method).__name__, repr(provenance.settings_of(method))]
                for site, method in self.methods.items()
            ],
            "positions": type(self.backbone.positions).__name__,
            "files": [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files],
            "systems": data.systems,
            "batch_size": data.batch_size,
            "strengths": self.strengths,
            "decoding": [self.max_new_tokens, self.temperature, self.top_p, self.samples, self.seed],
        }

    def _path(self, number: int) -> Path:
        return self.folder / "parts" / f"{number:05d}.jsonl"

    def predict_step(self, number: int, _batch_idx: int) -> int:
        """Write a part, unless it exists or is out of range; return its number."""
        data = data_of(self.trainer, PromptsDataModule)
        if number < data.parts and not self._path(number).is_file():
            lines = self.respond(*data.part(number))
            write_text(self._path(number), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        return number

    def on_predict_end(self) -> None:
        """Join the parts."""
        self.trainer.strategy.barrier("responded")
        if not self.trainer.is_global_zero:
            return
        data = data_of(self.trainer, PromptsDataModule)
        text = "".join(self._path(number).read_text(encoding="utf-8") for number in range(data.parts))
        write_text(self.folder / "responses.jsonl", text)
        lines = [json.loads(line) for line in text.split("\n") if line]
        warned = "".join(f"> **Warning.** {sentence}\n\n" for sentence in self.mismatches)
        write_text(self.folder / "responses.md", warned + side_by_side(lines))
        print(f"{len(lines)} responses: {self.folder / 'responses.jsonl'}; side by side in responses.md")

    # ---- responding

    def respond(self, system: str | None, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Return the lines of some prompts; all strengths are rows of one batch."""
        rows = [(prompt, sample) for prompt in prompts for sample in range(self.samples)]
        edits = {site: self._at(method, len(rows)) for site, method in self.methods.items()} if self.strengths else {}
        texts = self._generate(self.backbone, system, rows, 1 + len(self.strengths), edits)
        sources = [(self.backbone.llm, strength) for strength in (None, *self.strengths) for _ in rows]
        if self.tuned is not None:
            texts += self._generate(self.tuned, system, rows, 1, {})
            sources += [(self.tuned.llm, None)] * len(rows)
        return [
            {
                "id": prompt.id,
                "prompt": prompt.text,
                "system": system,
                "model": model,
                "strength": strength,
                "sample": sample,
                "response": text,
            }
            for (model, strength), (prompt, sample), text in zip(sources, itertools.cycle(rows), texts, strict=False)
        ]

    def _at(self, method: SteeringMethod, rows: int) -> Edit:
        """Return an edit that leaves the first rows unsteered, bit for bit, and steers as many at each strength."""

        def edit(h: Tensor) -> Tensor:  # all rows at once: a method may ask where each one's prompt ends
            strength = torch.tensor([method.identity_strength, *self.strengths], device=h.device)
            return torch.cat([h[:rows], method(h, strength.repeat_interleave(rows))[rows:]])

        return edit

    def _generate(
        self, llm: LLM, system: str | None, rows: Sequence[tuple[Prompt, int]], copies: int, edits: dict[str, Edit]
    ) -> list[str]:
        llm.system = system
        settings: dict[str, Any] = {}
        if self.temperature > 0:
            names = [f"{system}/{prompt.id}/{sample}" for prompt, sample in rows] * copies
            settings["logits_processor"] = [Sampler(names, self.seed, self.temperature, self.top_p)]
        return llm.generate([p.text for p, _ in rows] * copies, self.max_new_tokens, edits=edits, **settings)
