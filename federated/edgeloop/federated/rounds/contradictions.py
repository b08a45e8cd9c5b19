"""Tables of a run that contradict each other, refused together."""

from __future__ import annotations

from edgeloop.errors import OptionsError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions, Sampling
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.strategies import STRATEGIES, StrategyName, StrategyOptions

USUAL = StatisticsOptions()


def refuse_contradictions(
    privacy: PrivacyOptions,
    strategy: StrategyOptions,
    quorum: QuorumOptions,
    buffered: BufferedOptions | None,
    *,
    codec: Codec = Codec.NONE,
    teachers: int = 0,
    statistics: StatisticsOptions = USUAL,
    keeps: bool = False,
) -> None:
    """See that no two tables contradict each other.

    Args:
        codec: How updates travel.
        teachers: Device models that `[cloud] distill` keeps.
        statistics: What devices are asked to tell of their data.
        keeps: The journal keeps the contents of updates.

    Raises:
        OptionsError: Some do; all contradictions are named.
    """
    found = _of_buffered(strategy, quorum, privacy) if buffered is not None else []
    if strategy.name is StrategyName.SCAFFOLD and (buffered is not None or privacy.mode is not PrivacyMode.NONE):
        found.append("scaffold makes control variates of the updates as they are, in synchronous rounds")
    if buffered is not None and teachers:
        found.append("[cloud] distill learns from the devices of a synchronous round")
    if privacy.mode is PrivacyMode.LOCAL and codec is not Codec.NONE:
        found.append(f"local noise leaves nothing that upload = {codec.value} could leave out or round")
    if privacy.central and teachers:
        found.append(
            f"[cloud] distill learns from models of single devices, which {privacy.mode.value} adds no noise to"
        )
    found += _of_statistics(privacy, statistics)
    if keeps and (buffered is not None or privacy.mode is not PrivacyMode.NONE):
        found.append(
            '[journal] updates = "contents" keeps updates of single devices, of synchronous rounds without [privacy]'
        )
    found += _of_privacy(privacy, strategy, quorum) if privacy.mode is not PrivacyMode.NONE else []
    if found:
        raise OptionsError(f"options contradict each other: {'; '.join(found)}", advice="Change one of each.")


def _of_buffered(strategy: StrategyOptions, quorum: QuorumOptions, privacy: PrivacyOptions) -> list[str]:
    found = []
    if not STRATEGIES[strategy.name].streams:
        found.append(
            f"buffered rounds make a mean of updates as they come, and {strategy.name.value} needs all at once"
        )
    usual = QuorumOptions()
    changed = [key for key in ("fraction", "quorum", "over_select") if getattr(quorum, key) != getattr(usual, key)]
    if changed:
        keys = ", ".join(key.replace("_", "-") for key in changed)
        found.append(f"{keys} are of synchronous rounds, and buffered ones have size and concurrency in [buffered]")
    if privacy.mode is not PrivacyMode.NONE:
        found.append("a device may answer buffered rounds many times, and [privacy] counts one answer of it a round")
    return found


def _of_statistics(privacy: PrivacyOptions, statistics: StatisticsOptions) -> list[str]:
    if privacy.mode is PrivacyMode.LOCAL and statistics.asks:
        return [
            "[statistics] asks devices for exact counts, which the server would see before any noise, and with local "
            "noise nobody has to trust the server"
        ]
    if privacy.central and statistics.asks and not statistics.noisy:
        return [
            f"[statistics] asks devices for exact counts, and {privacy.mode.value} records sums with noise alone: they "
            "need noise-multiplier and clipping-norm in [statistics]"
        ]
    if privacy.mode is PrivacyMode.NONE and statistics.noisy:
        return ["[statistics] noise-multiplier is of central-fixed and central-adaptive, and [privacy] has no mode"]
    return []


def _of_privacy(privacy: PrivacyOptions, strategy: StrategyOptions, quorum: QuorumOptions) -> list[str]:
    found, mode = [], privacy.mode.value
    if privacy.central and not STRATEGIES[strategy.name].streams:
        found.append(f"{mode} bounds what one device adds to a mean, and {strategy.name.value} takes none")
    if privacy.sampling is Sampling.WITHOUT_REPLACEMENT:
        if quorum.fraction == 1:
            found.append("sampling = without-replacement takes a part of the devices, and fraction = 1 all")
        if quorum.over_select != 1 or quorum.quorum != 1:
            found.append(
                "sampling = without-replacement needs over-select = 1 and quorum = 1: the first to answer are no "
                "random sample"
            )
    return found
