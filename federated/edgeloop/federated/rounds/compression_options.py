"""How the updates of a run travel from the devices to the server."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.errors import OptionsError
from edgeloop.federated.device.compression.codec import Codec

DEFAULT_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionOptions:
    """`[compression]`.

    Attributes:
        upload: What devices are asked to send. One that cannot sends its weights as they are.
        share: Of top-k and top-k-int8: share of the values that an update holds. None: 0.01 of these two.
    """

    upload: Codec = Codec.NONE
    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is None:
            if self.upload.sparse:
                object.__setattr__(self, "share", DEFAULT_SHARE)
            return
        if not self.upload.sparse:
            raise OptionsError(
                f"[compression] share is not a key of upload = {self.upload.value!r}",
                advice="Choose top-k or top-k-int8, or leave share out.",
            )
        if not 0 < self.share <= 1:
            raise OptionsError(f"[compression] share is {self.share:g}", advice="It must be above 0, and 1 at most.")

    @property
    def sent_share(self) -> float:
        """Share of the values of an update that travels."""
        return 1.0 if self.share is None else self.share
