"""Virtual clock, arrivals and traces: the engine that serves, without machines."""
