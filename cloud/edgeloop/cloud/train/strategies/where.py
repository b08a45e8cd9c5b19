"""The strategy that the config names, or that the rules choose, and its devices."""

from __future__ import annotations

from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.cloud.train.strategies.choose import Choice, Situation, choose
from edgeloop.cloud.train.strategies.place import Place, local_devices, use_virtual_cpus
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig, check_pipeline_keys


def where(config: StrategyConfig, cluster: Cluster | None) -> tuple[Choice, Place]:
    """The strategy that is named, or that the rules choose, and the devices it gets.

    Raises:
        OptionsError: The rules choose a strategy that does not take the keys of [strategy] that are given.
    """
    if config.virtual_cpus > 1:
        use_virtual_cpus(config.virtual_cpus)
    if cluster is not None and (cluster.workers > 1 or cluster.parameter_servers):
        devices: tuple[str, ...] = ("CPU:0",)  # the strategy itself must be what wakes TensorFlow
    else:
        devices = local_devices()
    place = Place(
        devices=devices,
        cluster=cluster,
        tpu=config.tpu,
        start_timeout_s=config.start_timeout_s,
        heartbeat_s=config.heartbeat_s,
    )
    if config.name != Strategy.AUTO:
        return Choice(config.name, "The config names it."), place
    situation = Situation(
        tpu=bool(config.tpu),
        accelerators=sum(name.startswith("GPU") for name in devices),
        devices=len(devices),
        hosts=1 if cluster is None else cluster.workers,
        parameter_servers=0 if cluster is None else cluster.parameter_servers,
        links=config.links,
        workers=config.workers,
        gradients=config.gradients,
        bound=config.bound,
        model_size=config.model_size,
    )
    choice = choose(situation)
    check_pipeline_keys(config, choice.strategy)
    return choice, place
