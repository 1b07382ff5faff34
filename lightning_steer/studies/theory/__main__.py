"""``python -m lightning_steer.studies.theory``. The work is in a module that other processes can import by its name."""

import sys

from lightning_steer.studies.theory.study import main

if __name__ == "__main__":
    sys.exit(main())
