"""`internvla import-libero`: LIBERO's own demonstrations as a LeRobot data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from internvla_ros.evaluate.libero.demonstrations import open_writer, read_hdf5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla import-libero`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="LIBERO's HDF5 files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data set")


def run(args: argparse.Namespace) -> int:
    """Add every demonstration that is not in the data set yet."""
    added = 0
    with open_writer(args.out) as writer, tqdm(args.files, desc="files") as files:
        for path in files:
            for episode in read_hdf5(path):
                if episode.seed not in writer.seeds:
                    writer.write(episode)
                    added += 1
    print(f"{args.out}: {added} demonstrations added")
    return 0
