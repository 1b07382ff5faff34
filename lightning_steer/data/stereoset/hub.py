"""Read rows of StereoSet in the hub's form, from a folder of its files or from the hub."""

from pathlib import Path
from typing import Any

from lightning_steer import text_files
from lightning_steer.errors import UserError


def of_folder(folder: str, task: str) -> list[dict[str, Any]]:
    """Return the rows of a folder in the hub's form."""
    import pyarrow.parquet

    files = sorted(path for path in (Path(folder) / task).glob("*") if path.suffix in (".parquet", ".jsonl"))
    if not files:
        raise FileNotFoundError(
            f"{folder} has no {task}/*.parquet or .jsonl: expected the files of McGill-NLP/stereoset"
        )
    rows: list[dict[str, Any]] = []
    for path in files:
        try:
            if path.suffix == ".parquet":
                rows += pyarrow.parquet.read_table(path).to_pylist()
            else:
                rows += [row for _, row in text_files.json_lines(path)]
        except (ValueError, OSError) as error:  # pyarrow's errors are of these kinds
            raise UserError(f"{path} cannot be read: {error}") from None
    return rows


def of_hub(name: str, task: str) -> list[dict[str, Any]]:
    """Return the rows of a data set on the hub or in its local cache."""
    from datasets import load_dataset

    if name.endswith((".json", "/")) or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no StereoSet file or folder {name}")
    try:
        return list(load_dataset(name, task, split="validation"))  # type: ignore[arg-type]
    except Exception as error:  # errors of four libraries: offline, unknown name, gated, other columns
        raise UserError(
            f"{name} is no file, no folder, and cannot be loaded from the hub as {task} "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''})"
        ) from error
