"""Cost of a Lightning training step against a plain PyTorch loop, same network, data and optimizer.

Prints, for batches of 128 and 512, the median ratio of neighbouring turns, of ten steps each, as the machine's speed
changes by more than what is measured. Needs two minutes. Bounds: at most 1.15 at batch 128, 1.05 at batch 512.

    OMP_NUM_THREADS=2 python benchmarks/toy_training.py
"""

import logging
import statistics
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise

import lightning as L
import torch
from side_by_side import Timing, compared, say, seconds

from lightning_steer.data import ToyLabelDataModule
from lightning_steer.modules import ToyClassifier
from lightning_steer.networks import MLP

TURN, STEPS = 10, 1220


def plain(batch_size: int) -> Iterator[None]:
    """The loop that one would write by hand, a step at a time."""
    data = ToyLabelDataModule(batch_size=batch_size, steps_per_epoch=STEPS)
    network = MLP(residual="none")
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS, pct_start=0.03, cycle_momentum=False)
    for batch in data.train_dataloader():
        loss = torch.nn.functional.cross_entropy(network(batch.x).mT, batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield


class ByTurns(L.Callback):
    """After every few of the trainer's steps, each until the next begins, as many of the plain loop."""

    def __init__(self, steps: Iterator[None]) -> None:
        self.steps, self.began, self.pairs = steps, [], []

    def on_train_batch_start(self, *_: object) -> None:
        self.began.append(time.perf_counter())
        if len(self.began) > TURN:
            plain = [seconds(lambda: next(self.steps)) for _ in range(TURN)]
            lightning = [after - before for before, after in pairwise(self.began)]
            self.pairs.append((statistics.median(lightning[1:]), statistics.median(plain[1:])))
            self.began = [time.perf_counter()]


def measure(batch_size: int) -> Timing:
    """``ToyClassifier`` under the trainer, with its logging, beside the plain loop."""
    by_turns = ByTurns(plain(batch_size))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[by_turns],
    )
    trainer.fit(ToyClassifier(residual="none"), ToyLabelDataModule(batch_size=batch_size, steps_per_epoch=STEPS))
    return compared(by_turns.pairs[2:])


def main() -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for batch_size, bound in ((128, 1.15), (512, 1.05)):
        timing = measure(batch_size)
        told = f"Lightning over a plain loop, toy network, batch {batch_size}, {1e3 * timing.second:.1f} ms a step"
        say(f"toy training, batch {batch_size}", timing, f"<= {bound}", told)


if __name__ == "__main__":
    main()
