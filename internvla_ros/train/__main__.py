"""`accelerate launch -m internvla_ros.train ...`: `internvla train` in every process."""

from __future__ import annotations

import argparse
import sys

from internvla_ros.train import cli
from internvla_ros.train.errors import TrainingError

EXIT_ERROR = 2


def main() -> int:
    """Run with the process's arguments; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m internvla_ros.train")
    cli.add_arguments(parser)
    try:
        return cli.run(parser.parse_args())
    except (TrainingError, ValueError, OSError) as error:
        print(f"internvla train: {error}", file=sys.stderr)
        return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
