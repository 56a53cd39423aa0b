"""Quantities as types, so that a wrong unit is a type error."""

from typing import NewType

Seconds = NewType("Seconds", float)
