"""The control plane: `Engine.handle(event, now)` gives commands, and is pure."""

from rackscale.engine.build import build
from rackscale.engine.engine import Engine
from rackscale.engine.log import Entry, entry_line, header_line, read_entry, read_header
from rackscale.engine.replay import ReplayReport, replay
from rackscale.engine.stats import EngineStats, ExpertStats, GroupStats, RankStats

__all__ = [
    "Engine",
    "EngineStats",
    "Entry",
    "ExpertStats",
    "GroupStats",
    "RankStats",
    "ReplayReport",
    "build",
    "entry_line",
    "header_line",
    "read_entry",
    "read_header",
    "replay",
]
