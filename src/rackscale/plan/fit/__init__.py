"""How the cost model's numbers are found: fits to published measurements, each run by one command."""
