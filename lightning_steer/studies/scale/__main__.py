"""``python -m lightning_steer.studies.scale``. The work is in a module that other processes can import."""

import sys

from lightning_steer.studies.scale.study import main

if __name__ == "__main__":
    sys.exit(main())
