"""What [privacy] and [buffered] may say, alone and beside other tables."""

import math

import pytest

from edgeloop.errors import OptionsError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.device.statistics import Tell
from edgeloop.federated.rounds.buffered.options import BufferedOptions, staleness_weight
from edgeloop.federated.rounds.contradictions import refuse_contradictions
from edgeloop.federated.rounds.federation import read_federation
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions, Sampling, update_noise
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

GIVEN = {"noise_multiplier": 1.0, "clipping_norm": 0.5, "delta": 1e-5}


@pytest.mark.parametrize(
    ("mode", "given", "says"),
    [
        ("none", GIVEN, "noise-multiplier is not a key of mode none"),
        ("none", {"sampling": Sampling.WITHOUT_REPLACEMENT}, "sampling is not a key of mode none"),
        ("central-fixed", {"clipping_norm": 1.0}, "lacks noise-multiplier, delta"),
        ("central-fixed", {**GIVEN, "target_quantile": 0.5}, "target-quantile is not a key of mode central-fixed"),
        ("local", {**GIVEN, "sampling": Sampling.WITHOUT_REPLACEMENT}, "sampling is not a key of mode local"),
        ("local", {**GIVEN, "noise_multiplier": 0.0}, "noise-multiplier is 0"),
        ("central-fixed", {**GIVEN, "delta": 1.0}, "delta is 1"),
        ("central-fixed", {**GIVEN, "max_epsilon": -1.0}, "max-epsilon is -1"),
        ("central-adaptive", {**GIVEN, "target_quantile": 1.5}, "target-quantile is 1.5"),
    ],
)
def test_keys_of_another_mode_missing_ones_and_numbers_out_of_range_are_refused(mode, given, says):
    with pytest.raises(OptionsError, match=rf"^\[privacy\] {says}"):
        PrivacyOptions(mode=PrivacyMode(mode), **given)


def test_noise_of_updates_and_of_their_count_together_cost_what_the_noise_multiplier_says():
    adaptive = PrivacyOptions(mode=PrivacyMode.CENTRAL_ADAPTIVE, **GIVEN, clip_count_stddev=1.0)
    # (1^-2 - (2 * 1)^-2)^(-1/2) = (3/4)^(-1/2)
    assert update_noise(adaptive, 10) == (pytest.approx(2 / math.sqrt(3), rel=1e-12), 1.0)
    assert update_noise(PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, **GIVEN), 10) == (1.0, 0.0)
    usual = PrivacyOptions(mode=PrivacyMode.CENTRAL_ADAPTIVE, **GIVEN)
    assert update_noise(usual, 100)[1] == 5.0  # a twentieth of the wanted updates
    with pytest.raises(OptionsError, match=r"count of unclipped updates has noise of 0\.5\. Set .* above 0\.5"):
        update_noise(usual, 10)


def test_a_device_moves_the_sum_by_one_clipping_norm_or_two_where_it_is_replaced():
    central = PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, **GIVEN)
    sampled = PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, **GIVEN, sampling=Sampling.WITHOUT_REPLACEMENT)
    local = PrivacyOptions(mode=PrivacyMode.LOCAL, **GIVEN)
    assert (central.sensitivity, sampled.sensitivity, local.sensitivity) == (1, 2, 2)


MEANS = {StrategyName.FED_AVG, StrategyName.FED_PROX, StrategyName.FED_ADAM, StrategyName.FED_YOGI}


@pytest.mark.parametrize("name", StrategyName)
def test_central_privacy_and_buffered_rounds_take_strategies_of_the_mean_alone(name):
    central = PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, **GIVEN)
    strategy = StrategyOptions(name=name, proximal_mu=0.1 if name is StrategyName.FED_PROX else None)
    for privacy, buffered in ((central, None), (PrivacyOptions(), BufferedOptions())):
        if name in MEANS:
            refuse_contradictions(privacy, strategy, QuorumOptions(), buffered)
        else:
            with pytest.raises(OptionsError, match=f"contradict each other: .*{name.value}"):
                refuse_contradictions(privacy, strategy, QuorumOptions(), buffered)
    if name is not StrategyName.SCAFFOLD:
        refuse_contradictions(PrivacyOptions(mode=PrivacyMode.LOCAL, **GIVEN), strategy, QuorumOptions(), None)


def test_all_contradictions_are_named_together():
    sampled = PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, **GIVEN, sampling=Sampling.WITHOUT_REPLACEMENT)
    with pytest.raises(OptionsError) as raised:
        refuse_contradictions(
            sampled, StrategyOptions(name=StrategyName.KRUM), QuorumOptions(quorum=0.5), BufferedOptions()
        )
    assert raised.value.exit_code == 2
    for part in ("quorum are of synchronous", "krum needs all", "krum takes none", "fraction = 1", "over-select"):
        assert part in str(raised.value)
    with pytest.raises(OptionsError, match="distill learns from models of single devices, which central-fixed adds no"):
        refuse_contradictions(
            PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, **GIVEN),
            StrategyOptions(),
            QuorumOptions(),
            None,
            teachers=2,
        )
    with pytest.raises(OptionsError, match="upload = int8"):
        local = PrivacyOptions(mode=PrivacyMode.LOCAL, **GIVEN)
        refuse_contradictions(local, StrategyOptions(), QuorumOptions(), None, codec=Codec.INT8)
    exact = QuorumOptions(fraction=0.5, over_select=1.0)
    refuse_contradictions(sampled, StrategyOptions(), exact, None)


NOISY = {"noise_multiplier": 4.0, "clipping_norm": 20.0}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"noise_multiplier": 1.0}, "lacks clipping-norm"),
        ({"clipping_norm": 1.0}, "lacks noise-multiplier"),
        ({**NOISY, "noise_multiplier": 0.0}, "noise-multiplier is 0"),
        ({**NOISY, "clipping_norm": math.inf}, "clipping-norm is inf"),
        ({**NOISY, "tell": Tell.NONE}, "noise-multiplier is given, and tell = none"),
        ({**NOISY, "label_moments": True}, "noise-multiplier is given, and label-moments"),
    ],
)
def test_noise_on_counts_needs_both_its_numbers_and_counts(given, says):
    with pytest.raises(OptionsError, match=rf"^\[statistics\] {says}"):
        StatisticsOptions(**given)


@pytest.mark.parametrize(
    ("mode", "given", "says"),
    [
        ("local", NOISY, "with local noise nobody has to trust the server"),
        ("local", {"tell": Tell.EXAMPLES}, "with local noise nobody has to trust the server"),
        ("central-fixed", {"tell": Tell.EXAMPLES}, "need noise-multiplier and clipping-norm in"),
        ("central-adaptive", {"label_moments": True}, "need noise-multiplier and clipping-norm in"),
        ("none", NOISY, r"and \[privacy\] has no mode"),
        ("central-fixed", {}, None),
        ("central-fixed", {"tell": Tell.NONE}, None),
        ("central-fixed", NOISY, None),
        ("central-adaptive", {**NOISY, "tell": Tell.EXAMPLES}, None),
        ("none", {"tell": Tell.EXAMPLES, "label_moments": True}, None),
    ],
)
def test_counts_of_private_rounds_need_noise_and_a_server_that_is_trusted(mode, given, says):
    privacy = PrivacyOptions(mode=PrivacyMode(mode), **({} if mode == "none" else GIVEN))
    tables = privacy, StrategyOptions(), QuorumOptions(), None
    if says is None:
        refuse_contradictions(*tables, statistics=StatisticsOptions(**given))
    else:
        with pytest.raises(OptionsError, match=says) as raised:
            refuse_contradictions(*tables, statistics=StatisticsOptions(**given))
        assert raised.value.exit_code == 2


def test_staleness_weights_are_those_of_the_paper():
    # 1 / sqrt(1 + staleness): Nguyen et al. 2022, section 5
    assert [staleness_weight(n) for n in (0, 3, 8, 99)] == [1.0, 0.5, pytest.approx(1 / 3), 0.1]


def test_a_buffer_fits_the_devices():
    assert BufferedOptions().sizes(3) == (2, 3)
    assert BufferedOptions().sizes(100) == (10, 100)
    assert BufferedOptions(size=3, concurrency=5).sizes(4) == (3, 4)
    with pytest.raises(OptionsError, match="size is 5, and there are 4 devices"):
        BufferedOptions(size=5).sizes(4)


def test_a_file_names_both_tables(tmp_path):
    file = tmp_path / "federation.toml"
    for index in range(2):
        (tmp_path / f"{index}.npz").write_bytes(b"")
    rest = '[model]\nbundle = "b"\n[devices]\nshards = ["0.npz", "1.npz"]\n'
    file.write_text(
        rest + '[privacy]\nmode = "central-fixed"\nnoise-multiplier = 2\nclipping-norm = 0.5\ndelta = 1e-5\n'
        "max-epsilon = 8\n"
    )
    options = read_federation(file).rounds_options(tmp_path / "run")
    assert (options.privacy.max_epsilon, options.buffered) == (8.0, None)
    file.write_text(rest + '[rounds]\nmode = "buffered"\n[buffered]\nsize = 2\nmax-staleness = 3\n')
    assert read_federation(file).rounds_options(tmp_path / "run").buffered == BufferedOptions(size=2, max_staleness=3)
    file.write_text(rest + "[buffered]\nsize = 2\n")
    with pytest.raises(OptionsError, match=r"\[buffered\] is given, and the rounds are synchronous"):
        read_federation(file).rounds_options(tmp_path / "run")


@pytest.mark.parametrize(
    "table",
    [
        '[privacy]\nmode = "local"\nnoise-multiplier = 1.0\nclipping-norm = 1.0\ndelta = 1e-5\n',
        "[buffered]\nsize = 1\n",
    ],
)
def test_updates_themselves_are_kept_of_synchronous_rounds_without_privacy_alone(tmp_path, table):
    path, mode = tmp_path / "f.toml", 'mode = "buffered"\n' if "buffered" in table else ""
    lines = f'[model]\nbundle = "b"\n[rounds]\n{mode}[devices]\nshards = ["a.npz"]\n{table}[journal]\n'
    path.write_text(f'{lines}updates = "hashes"\n')
    assert read_federation(path).rounds_options(tmp_path / "out").journal.limit_bytes is None
    path.write_text(f'{lines}updates = "contents"\n')
    with pytest.raises(OptionsError, match='updates = "contents" keeps updates of single devices'):
        read_federation(path).rounds_options(tmp_path / "out")
