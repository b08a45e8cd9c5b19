"""TF_CONFIG, read and checked before TensorFlow sees it: TensorFlow waits for ever for a worker that nobody starts.

Source of the format: https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable
"""

from __future__ import annotations

import enum
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import OptionsError
from edgeloop.settings import suggestion

TF_CONFIG = "TF_CONFIG"
ADVICE = 'It must be like {"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}.'


class Role(enum.StrEnum):
    """What a task of a cluster does."""

    CHIEF = "chief"
    WORKER = "worker"
    PS = "ps"
    EVALUATOR = "evaluator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The tasks of one training and which of them this process is.

    Attributes:
        addresses: `host:port` of every task, by role.
        index: Of this task among those of its role.
    """

    addresses: Mapping[Role, tuple[str, ...]]
    role: Role
    index: int

    @property
    def workers(self) -> int:
        """Tasks that compute gradients. With parameter servers the chief coordinates and computes none."""
        chiefs = 0 if self.parameter_servers else len(self.addresses.get(Role.CHIEF, ()))
        return chiefs + len(self.addresses.get(Role.WORKER, ()))

    @property
    def parameter_servers(self) -> int:
        return len(self.addresses.get(Role.PS, ()))

    @property
    def saves(self) -> bool:
        """Whether this task writes the run folder: the chief, or worker 0 where there is no chief."""
        if Role.CHIEF in self.addresses:
            return self.role == Role.CHIEF
        return self.role == Role.WORKER and self.index == 0

    @property
    def serves(self) -> bool:
        """Whether this task only does what the coordinator asks."""
        return self.role == Role.PS or (self.parameter_servers > 0 and self.role == Role.WORKER)

    @property
    def name(self) -> str:
        return f"{self.role.value} {self.index}"


def read_cluster(text: str | None = None) -> Cluster | None:
    """The cluster that TF_CONFIG describes; None where it is not set, or describes no cluster.

    Args:
        text: The value of TF_CONFIG. None: that of the environment.

    Raises:
        OptionsError: It is not valid JSON, or contradicts itself; what contradicts what is named.
    """
    text = os.environ.get(TF_CONFIG, "") if text is None else text
    if not text.strip():
        return None
    try:
        given = json.loads(text)
    except ValueError as e:
        raise OptionsError(f"TF_CONFIG is not valid JSON: {e}", advice=ADVICE) from e
    if not isinstance(given, dict):
        raise OptionsError(f"TF_CONFIG is {text[:80]!r}, which is not a JSON object", advice=ADVICE)
    if not given.get("cluster"):
        return None  # Vertex AI sets it so for one machine
    addresses = _addresses(given["cluster"])
    role, index = _task(given.get("task"), addresses)
    _check_roles(addresses)
    return Cluster(addresses=addresses, role=role, index=index)


def _addresses(given: Any) -> dict[Role, tuple[str, ...]]:
    if not isinstance(given, dict):
        raise OptionsError("TF_CONFIG's cluster is not a JSON object", advice=ADVICE)
    found: dict[Role, tuple[str, ...]] = {}
    for name, listed in given.items():
        role = _role(name, "cluster")
        if not isinstance(listed, list) or not listed:
            raise OptionsError(f"TF_CONFIG lists no addresses for {name}", advice=ADVICE)
        for one in listed:
            host, _, port = str(one).rpartition(":")
            if not isinstance(one, str) or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
                raise OptionsError(f"TF_CONFIG has the address {one!r} for {name}", advice="It must be host:port.")
        found[role] = tuple(listed)
    twice = [one for one, count in Counter(one for listed in found.values() for one in listed).items() if count > 1]
    if twice:
        raise OptionsError(
            f"TF_CONFIG gives the address {twice[0]} to two tasks", advice="Give each task a port of its own."
        )
    return found


def _task(given: Any, addresses: Mapping[Role, tuple[str, ...]]) -> tuple[Role, int]:
    if not isinstance(given, dict) or "type" not in given:
        raise OptionsError("TF_CONFIG does not say which task this process is", advice=ADVICE)
    role, index = _role(given["type"], "task"), given.get("index", 0)
    if isinstance(index, str) and index.isdecimal():  # TensorFlow takes it too
        index = int(index)
    known = len(addresses.get(role, ()))
    if not known and role != Role.EVALUATOR:  # which no other task speaks with
        raise OptionsError(
            f"TF_CONFIG says that this task is a {role.value}, but its cluster has none",
            advice=f"Add {role.value} to the cluster, or choose from {', '.join(addresses)}.",
        )
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < max(known, 1):
        raise OptionsError(
            f"TF_CONFIG says that this task is {role.value} {index}, but its cluster has {known} of that type",
            advice=f"Use an index from 0 to {max(known, 1) - 1}.",
        )
    return role, index


def _check_roles(addresses: Mapping[Role, tuple[str, ...]]) -> None:
    if len(addresses.get(Role.CHIEF, ())) > 1:
        raise OptionsError("TF_CONFIG has more than one chief", advice="Make the others workers.")
    if Role.PS in addresses:
        missing = [role.value for role in (Role.CHIEF, Role.WORKER) if role not in addresses]
        if missing:
            raise OptionsError(
                f"TF_CONFIG has parameter servers (ps) but no {' and no '.join(missing)}",
                advice="A cluster with ps needs one chief, which coordinates, and one worker or more.",
            )
    elif Role.CHIEF not in addresses and Role.WORKER not in addresses:
        raise OptionsError("TF_CONFIG has neither a chief nor workers", advice=ADVICE)


def _role(name: Any, where: str) -> Role:
    known = [role.value for role in Role]
    if name == "master":  # the old word of TensorFlow 1
        return Role.CHIEF
    if name not in known:
        raise OptionsError(f"TF_CONFIG's {where} has the type {name!r}", advice=suggestion(str(name), known))
    return Role(name)
