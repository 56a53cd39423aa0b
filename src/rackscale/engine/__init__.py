"""The control plane: `Engine.handle(event, now)` gives commands, and is pure."""
