"""Pure decisions: which blocks, which prefix, which work enters the next step."""
