"""From a log of events and commands to TTFT, TPOT, ITL and goodput."""
