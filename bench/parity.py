"""Compare this implementation with numbers recorded from the released one.

    python bench/parity.py REFERENCE [--verbose]

One line an array, over all samples: the worst absolute difference (relative for losses and
gradients) and its tolerance. Batches are compared with the recorded single calls, since padding is
masked here. Exits with 1 where a tolerance is exceeded or an array could not be computed, and with
2 where the reference cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from internvla_ros.model.checkpoint import CheckpointError
from internvla_ros.model.parity import ParityError
from internvla_ros.model.parity_report import compare, table


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder of the recorded reference")
    parser.add_argument("--verbose", action="store_true", help="one line a sample and array")
    args = parser.parse_args()
    try:
        rows = compare(args.reference, verbose=args.verbose)
    except (ParityError, CheckpointError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    failed = [row for row in rows if not row.passed]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} arrays within their tolerance")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
