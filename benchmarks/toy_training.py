"""Cost of a Lightning training step against a plain PyTorch loop, same network, data and optimizer.

Prints, for batches of 128 and 512, the ratio of medians over interleaved runs in one process. Needs about two minutes.
Bounds: at most 1.15 at batch 128, 1.05 at batch 512.

    OMP_NUM_THREADS=2 python benchmarks/toy_training.py
"""

import logging
import time
import warnings

import lightning as L
import torch
from side_by_side import compared, say
from tqdm.auto import tqdm

from lightning_steer.data import ToyLabelDataModule
from lightning_steer.models import MLP
from lightning_steer.modules import ToyClassifier

STEPS, WARM, REPEATS = {128: 150, 512: 60}, 10, 15


def plain(batch_size: int) -> float:
    """Seconds for each step of the loop that one would write by hand."""
    data = ToyLabelDataModule(batch_size=batch_size, steps_per_epoch=STEPS[batch_size] + WARM)
    network = MLP(residual="none")
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    total = STEPS[batch_size] + WARM
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total, pct_start=0.03, cycle_momentum=False)
    start = 0.0
    for step, batch in enumerate(data.train_dataloader()):
        if step == WARM:
            start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(network(batch.x).mT, batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return (time.perf_counter() - start) / STEPS[batch_size]


class Clock(L.Callback):
    """Times the steps after the warm-up, as the plain loop does."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == WARM:
            self.start = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start


def ours(batch_size: int) -> float:
    """Seconds for each step of ``ToyClassifier`` under the trainer, with its logging."""
    data = ToyLabelDataModule(batch_size=batch_size, steps_per_epoch=STEPS[batch_size] + WARM)
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[clock],
    )
    trainer.fit(ToyClassifier(residual="none"), data)
    return clock.seconds / STEPS[batch_size]


def main() -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for batch_size, bound in ((128, 1.15), (512, 1.05)):
        pairs = [
            (ours(batch_size), plain(batch_size)) for _ in tqdm(range(REPEATS), desc=f"batch {batch_size}", leave=False)
        ]
        timing = compared(pairs)
        told = f"Lightning over a plain loop, toy network, batch {batch_size}, {1e3 * timing.second:.1f} ms a step"
        say(f"toy training, batch {batch_size}", timing, f"<= {bound}", told)


if __name__ == "__main__":
    main()
