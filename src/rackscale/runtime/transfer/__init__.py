"""How KV gets from one rank's cache to another's."""
