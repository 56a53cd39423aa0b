"""The command line: parses arguments and prints, nothing else."""

from rackscale.cli.app import main

__all__ = ["main"]
