"""``python -m lightning_steer.studies.preventive``. The work is in a module that other processes can import."""

import sys

from lightning_steer.studies.preventive.study import main

if __name__ == "__main__":
    sys.exit(main())
