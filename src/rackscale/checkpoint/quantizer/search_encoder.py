"""`--method search` without calibration: the block scales that err least, all weights counting alike."""

from torch import Tensor

from rackscale.checkpoint.codecs import Format, Packed
from rackscale.checkpoint.quantizer.methods import search_shared


class SearchEncoder:
    """An `Encoder`, without state."""

    def encode(self, roles: tuple[str, ...], weights: tuple[Tensor, ...]) -> tuple[Packed, ...]:
        """See `methods.search`."""
        del roles
        tensor_scale, encoded = search_shared(weights)
        return tuple(
            Packed(format=Format.NVFP4, codes=part.codes, scales=part.scales, tensor_scale=tensor_scale)
            for part in encoded
        )
