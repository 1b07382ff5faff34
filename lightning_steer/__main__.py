"""``python -m lightning_steer``."""

import sys

OVERVIEW = """\
usage: python -m lightning_steer COMMAND --config EXPERIMENT.yaml [--config METHOD.yaml] [options]

Train and evaluate activation steering. For example, after `fit --config configs/toy.yaml`:

  python -m lightning_steer fit  --config configs/steer_toy.yaml --config configs/methods/leace.yaml
  python -m lightning_steer test --config configs/steer_toy.yaml --config configs/methods/leace.yaml

commands:
  fit        learn a network or a steering method, and choose its strength
  test       report on held-out data, with intervals and baselines
  validate   run the sweep over strengths again
  predict    write predictions
  judge      judge outcomes of any tool, and choose a strength under promises: judge outcomes.csv --benefit "refused>=0"
  lint       look for what spoils pairs, such as positives that are all the answer A: lint pairs.jsonl
  check      try the laws of steering on your own model: check --llm NAME
  steer      from pairs to steered text, layer and strength chosen: steer --llm NAME --pairs FILE
  chat       talk at several strengths side by side, or on a page with --web: chat --llm NAME --vector FILE
  export     write a vector file, or one for another tool: export checkpoints/EXPERIMENT/RUN FILE

`COMMAND --help` lists the options of a command, `fit --model.help SteeringAdaptor` and `fit --data.help NAME` those of
a class. `COMMAND --config ... --print_config` prints the configuration in full.
`python -m lightning_steer.report logs/` collects all runs into one table.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; a user's mistake ends it with one sentence and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] in ([], ["-h"], ["--help"]):
        print(OVERVIEW, end="")
        return 0
    if given[0] == "judge":  # needs neither torch nor Lightning, which `errors` loads
        from lightning_steer.outcomes.__main__ import main as judge

        return judge(given[1:])
    from lightning_steer import errors

    try:
        if given[0] == "check":
            from lightning_steer.check.__main__ import main as check

            return check(given[1:])
        if given[0] == "lint":
            from lightning_steer.lint.__main__ import main as lint

            return lint(given[1:])
        if given[0] == "steer":
            from lightning_steer.workflows.command import main as steer

            return steer(given[1:])
        if given[0] == "chat":
            from lightning_steer.chat.__main__ import main as chat

            return chat(given[1:])
        if given[0] == "export":
            from lightning_steer.vectors.__main__ import main as export

            return export(given[1:])
        from torch import distributed

        from lightning_steer.cli import CLI

        CLI(arguments)
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()  # its threads may abort a process that ends before them
    except Exception as error:
        sentence = errors.of_exception(error)
        if sentence is None:
            raise
        from lightning_steer.escapes import say

        say(f"lightning_steer: {sentence}", error=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
