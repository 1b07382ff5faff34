"""The figures of a search and of its judgement, for TensorBoard."""

from pathlib import Path

EVENTS = "events.out.tfevents.*"


def write(folder: Path) -> None:
    """Write all pictures of a folder into a log that TensorBoard shows, in the same folder."""
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter  # a second to import, for what comes last

    with SummaryWriter(str(folder)) as log:
        for path in sorted(folder.glob("*.png")):
            log.add_image(path.stem, imread(path), dataformats="HWC")


def remove(folder: Path) -> None:
    """Remove the logs of an earlier run, whose pictures would stand beside those of this one."""
    for path in folder.glob(EVENTS):
        path.unlink(missing_ok=True)
