"""What a text says of a model's inputs, and a quantised model that makes use of it."""

from rackscale.runtime.calibration.calibrate import calibrate, calibrate_tokens
from rackscale.runtime.calibration.encoder import CalibratedEncoder

__all__ = ["CalibratedEncoder", "calibrate", "calibrate_tokens"]
