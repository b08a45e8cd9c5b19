"""Keys of a device's reply, known to both ends."""

from __future__ import annotations

EXAMPLES = "num-examples"  # the weight of a reply; Flower's own name for it
LOSS = "train_loss"
SECONDS = "seconds"
DEVICE = "device"  # its position in the list of shards
LACKS = "lacks"  # of an error reply: the hash of the model that the device would need
ERROR = "error"  # a reply that holds this record alone, with this key and DEVICE, says why the training failed
