"""Private rounds over a played network: clipping, noise, the budget, and what a kill costs of it."""

import json
import math

import numpy as np
import pytest
from played_grid import PlayedGrid, Steps, honest, reply_of, zeros

from edgeloop.errors import DeviceError, OptionsError
from edgeloop.federated.device.local_noise import with_local_noise
from edgeloop.federated.device.statistics import Tell
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions, Sampling
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_state, read_weights
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.told import Labels
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

pytest.importorskip("flwr")
pytest.importorskip("dp_accounting")

Z, DELTA = 2.0, 1e-5
FIXED = {"mode": PrivacyMode.CENTRAL_FIXED, "noise_multiplier": Z, "clipping_norm": 0.5, "delta": DELTA}


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def loop(grid, out, *, rounds=3, privacy=FIXED, **more):
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

    quorum = QuorumOptions(**{"deadline_s": 0.2, "wait_s": 0.1, **more.pop("quorum", {})})
    options = LoopOptions(
        rounds=rounds, devices=len(grid.nodes), quorum=quorum, privacy=PrivacyOptions(**privacy), **more
    )
    return RoundLoop(grid, options, out, zeros())


def three():
    return PlayedGrid({n: honest(n) for n in (1, 2, 3)})


def accounted(noise_multiplier, releases):
    """Epsilon by Google's accountant, without Flower's."""
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant().compose(GaussianDpEvent(noise_multiplier), releases).get_epsilon(DELTA)


def releases_of(out):
    lines = (out / "journal" / "journal.jsonl").read_bytes().splitlines()
    return sum(json.loads(line)["entry"]["kind"] == "release" for line in lines)


def private_mean(base, clipping_norm, noise_multiplier, **more):
    from edgeloop.federated.rounds.privacy.private_mean import PrivateMean

    return PrivateMean(base, clipping_norm, noise_multiplier, lambda count: None, **more)


def collected(mean, base, changes):
    """The weights that come of updates that add `changes` to all of `base`."""
    from flwr.app import Message, RecordDict

    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    asked.metadata.__dict__["_message_id"] = "1"
    for change in changes:
        arrays = {name: array + np.float32(change) for name, array in base.items()}
        norm = math.sqrt(sum(float(np.square(arrays[name] - base[name]).sum()) for name in base))
        mean.add(Message(reply_of(arrays), reply_to=asked), Update(1, 1, 10, 0.5, 0.1, norm, "", arrays))
    (reply,) = mean.replies()
    return {name: array.numpy() for name, array in reply.content["arrays"].items()}


def test_updates_are_clipped_and_weigh_the_same():
    base = {"w000": np.ones(4, np.float32)}
    mean = private_mean(base, 1.0, 0.0)
    # a change of c in 4 elements has the norm 2c: 3 becomes 1/2, 0.25 and 0 stay; (0.5 + 0.25 + 0) / 3 = 0.25
    np.testing.assert_array_equal(collected(mean, base, [3, 0.25, 0])["w000"], np.full(4, 1.25, np.float32))
    assert mean.within == 2


def test_noise_of_the_mean_has_the_stated_deviation_and_is_never_the_same():
    base, count = {"w000": np.zeros(40_000, np.float32)}, 4

    def drawn(**entropy):
        return collected(private_mean(base, 0.5, Z, **entropy), base, [0.0] * count)["w000"]

    noise = drawn(entropy=lambda: bytes(64))  # fixed: no chance decides
    # deviation z C / n = 0.25; that of 40,000 samples has a deviation of 1 / sqrt(80,000) of it
    assert abs(noise.std() / 0.25 - 1) < 4 / math.sqrt(80_000) and abs(noise.mean()) < 4 * 0.25 / 200
    np.testing.assert_array_equal(drawn(entropy=lambda: bytes(64)), noise)
    assert not np.array_equal(drawn(), drawn())


def test_an_optimizer_of_the_server_steps_from_the_noisy_mean(tmp_path):
    """Its result costs no more privacy. Without noise before it, step 1 of Adam moves each weight by 0.1 at most."""
    strategy = StrategyOptions(name=StrategyName.FED_ADAM)
    loud = {**FIXED, "noise_multiplier": 1e4}
    loop(three(), tmp_path, rounds=1, privacy=loud, strategy=strategy).run()
    found = read_weights(tmp_path / "rounds" / "round-1.npz")
    # noise on Adam's result would be 1e4 * 0.5 / 3; Flower's step is 0.1 sqrt(1 - b2^2) / (1 - b1^2) times
    # m / sqrt(v) = (1 - b1) / sqrt(1 - b2) = 1: 0.1 * 0.1411 / 0.19
    assert max(float(np.abs(array).max()) for array in found.values()) < 0.0743


def test_epsilon_of_each_round_is_that_of_dp_accounting_also_after_a_resume(tmp_path):
    loop(three(), tmp_path, rounds=2).run()
    loop(three(), tmp_path, rounds=5).run()
    records = read_rounds(tmp_path)
    assert [record.privacy.releases for record in records] == [1, 2, 3, 4, 5]
    for number, record in enumerate(records, 1):
        assert record.privacy.epsilon == pytest.approx(accounted(Z, number), abs=1e-6)
    assert records[-1].privacy.noise_stddev == pytest.approx(Z * 0.5 / 3)


def test_the_run_ends_well_before_the_round_that_would_pass_the_budget(tmp_path):
    budget = {**FIXED, "max_epsilon": accounted(Z, 3) + 1e-6}
    grid = three()
    loop(grid, tmp_path, rounds=5, privacy=budget).run()
    records = read_rounds(tmp_path)
    assert (len(records), read_state(tmp_path)) == (3, "privacy-budget-spent")
    assert records[-1].privacy.epsilon <= budget["max_epsilon"]
    assert grid.pushed == {1: 3, 2: 3, 3: 3}  # nobody was asked a fourth time
    loop(grid, tmp_path, rounds=5, privacy=budget).run()
    assert (len(read_rounds(tmp_path)), grid.pushed[1], releases_of(tmp_path)) == (3, 3, 3)


def test_a_budget_that_allows_no_round_is_refused(tmp_path):
    with pytest.raises(OptionsError, match=r"max-epsilon is 0\.1, and the first round alone spends 2\.") as raised:
        loop(three(), tmp_path, privacy={**FIXED, "max_epsilon": 0.1})
    assert raised.value.exit_code == 2


def test_a_kill_at_any_write_never_shows_a_release_that_was_not_charged(tmp_path, monkeypatch):
    """Round 2 writes three updates, the release, two files, the entry of the round; it is redone after the kill."""
    from edgeloop.federated.rounds.journal import journal

    for step in range(7):
        out, steps = tmp_path / str(step), Steps(step)
        loop(three(), out, rounds=1).run()
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "_append", steps.dying(journal.Journal._append))
            patch.setattr(journal, "write_file", steps.dying(journal.write_file))
            with pytest.raises(KeyboardInterrupt):
                loop(three(), out, rounds=2).run()
        shown = (out / "rounds" / "round-2.npz").is_file()
        assert releases_of(out) == (2 if step > 3 else 1) and (not shown or releases_of(out) == 2)
        loop(three(), out, rounds=2).run()
        record = read_rounds(out)[-1]
        charged = 3 if step > 3 else 2
        assert record.privacy.releases == releases_of(out) == charged
        assert record.privacy.epsilon == pytest.approx(accounted(Z, charged), abs=1e-6)


def test_a_sample_without_replacement_is_accounted_at_half_the_noise():
    """One device in place of another moves the sum by two clipping norms."""
    from dp_accounting import GaussianDpEvent, NeighboringRelation, SampledWithoutReplacementDpEvent
    from dp_accounting.rdp import RdpAccountant

    from edgeloop.federated.rounds.privacy.budget import PrivacyBudget

    options = PrivacyOptions(**FIXED, sampling=Sampling.WITHOUT_REPLACEMENT)
    before = {"noise_multiplier": Z / 2, "sample_size": 4, "population_size": 30}
    budget = PrivacyBudget(options, 100, [before] * 2)  # it went back, and goes on with more devices
    budget.spent[budget.event(10, 100)] += 7
    reference = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    reference.compose(SampledWithoutReplacementDpEvent(30, 4, GaussianDpEvent(Z / 2)), 2)
    reference.compose(SampledWithoutReplacementDpEvent(100, 10, GaussianDpEvent(Z / 2)), 7)
    assert budget.epsilon == pytest.approx(reference.get_epsilon(DELTA), abs=1e-6)
    assert budget.event(10, 99).sample_size == 11  # 10 of 99 is more than 10 of 100, and no more than 11


SAMPLED = {**FIXED, "sampling": Sampling.WITHOUT_REPLACEMENT}
TENTH = {"fraction": 0.1, "over_select": 1.0}


def test_nobody_who_knows_the_seed_knows_who_is_in_a_sample(tmp_path):
    grid = PlayedGrid({n: honest(n) for n in range(100)})
    for privacy, choices in ((FIXED, 1), (SAMPLED, 2)):  # equal ones by chance: once in 10^13
        plans = [loop(grid, tmp_path / str(n), privacy=privacy, quorum=TENTH)._plan(1, 1) for n in range(2)]
        assert len({plan.chosen for plan in plans}) == choices and len(plans[0].chosen) == 10


def test_a_sample_that_is_drawn_again_since_devices_fail_is_charged_again(tmp_path, monkeypatch):
    """Where half of ten devices fail, a sample that counts holds each of the others twice as often as one of ten."""
    from flwr.app import Error

    from edgeloop.federated.rounds.privacy.budget import PrivacyBudget

    monkeypatch.setattr(PrivacyBudget, "epsilon", 0.0)  # it takes a second
    asked = []

    def node(number):
        def answer(message):
            asked.append(number)
            return Error(code=3, reason="no memory") if len(asked) <= 2 else honest(number)(message)

        return answer

    loop(PlayedGrid({n: node(n) for n in range(10)}), tmp_path, rounds=2, privacy=SAMPLED, quorum=TENTH).run()
    first, second = read_rounds(tmp_path)
    assert (first.attempt, first.privacy.releases) == (3, 3) and (second.attempt, second.privacy.releases) == (1, 4)
    assert releases_of(tmp_path) == 4
    with pytest.raises(DeviceError, match="round 3 has no quorum"):
        silent = PlayedGrid({n: lambda m: None for n in range(10)})
        loop(silent, tmp_path, privacy=SAMPLED, quorum={**TENTH, "attempts": 2}).run()
    assert releases_of(tmp_path) == 6  # --resume cannot draw again for nothing either


COUNTS = {"noise_multiplier": 4.0, "clipping_norm": 8.0}


@pytest.mark.parametrize("sampling", Sampling)
@pytest.mark.parametrize("mode", ["central-fixed", "central-adaptive"])
def test_counts_beside_updates_cost_what_both_gaussians_do_together(mode, sampling):
    from dp_accounting import ComposedDpEvent, GaussianDpEvent, NeighboringRelation, SampledWithoutReplacementDpEvent
    from dp_accounting.rdp import RdpAccountant

    from edgeloop.federated.rounds.privacy.budget import PrivacyBudget
    from edgeloop.federated.rounds.privacy.options import update_noise

    options = PrivacyOptions(**{**FIXED, "mode": PrivacyMode(mode)}, sampling=sampling)
    budget = PrivacyBudget(options, 100, counts_noise=4.0)
    budget.spent[budget.event(40, 100)] += 3
    updates, stddev = update_noise(options, 40)
    noises = [updates, 4.0] + ([2 * stddev] if stddev else [])  # the count of unclipped updates: +-1/2 beside sigma_b
    parts = ComposedDpEvent([GaussianDpEvent(z / options.sensitivity) for z in noises])
    sampled = sampling is Sampling.WITHOUT_REPLACEMENT
    relation = NeighboringRelation.REPLACE_ONE if sampled else NeighboringRelation.ADD_OR_REMOVE_ONE
    reference = RdpAccountant(neighboring_relation=relation)
    reference.compose(SampledWithoutReplacementDpEvent(100, 40, parts) if sampled else parts, 3)
    assert budget.epsilon == pytest.approx(reference.get_epsilon(DELTA), abs=1e-6)


def test_counts_of_a_private_run_have_noise_and_are_charged_also_after_a_resume(tmp_path):
    from dp_accounting import ComposedDpEvent, GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant
    from flwr.app import MetricRecord

    def telling(node):
        def answer(message):
            assert message.content["config"]["statistics"] == "evaluation"
            reply = honest(node)(message)
            counts = {"examples-by-class": [7, 3, 0], "correct-by-class": [5, 1, 0]}
            reply["statistics"] = MetricRecord(counts)
            return reply

        return answer

    def both(releases):
        event = ComposedDpEvent([GaussianDpEvent(Z), GaussianDpEvent(4.0)])
        return RdpAccountant().compose(event, releases).get_epsilon(DELTA)

    asked = {"statistics": StatisticsOptions(tell=Tell.EVALUATION, **COUNTS), "labels": Labels(3)}
    budget = {**FIXED, "max_epsilon": both(3) + 1e-6}
    grid = PlayedGrid({n: telling(n) for n in (1, 2, 3)})
    loop(grid, tmp_path, rounds=2, privacy=budget, **asked).run()
    before = [record.statistics for record in read_rounds(tmp_path)]
    loop(grid, tmp_path, rounds=5, privacy=budget, **asked).run()
    records = read_rounds(tmp_path)
    assert (len(records), read_state(tmp_path)) == (3, "privacy-budget-spent")
    for number, record in enumerate(records, 1):
        assert record.privacy.epsilon == pytest.approx(both(number), abs=1e-6)
    told = [record.statistics for record in records]
    assert told[:2] == before and len({one.examples for one in told}) == 3
    # norm sqrt(49 + 9 + 25 + 1) = 9.17 is scaled to 8: sums 3 * 8 / 9.17 (7, 3, 0), with noise of 32; 6 deviations
    exact = np.array([7, 3, 0, 5, 1, 0]) * 24 / math.sqrt(84)
    for one in told:
        assert (one.devices, one.clients, one.noise_stddev) == (3, (), 32.0)
        assert np.abs(np.array(one.examples + one.correct) - exact).max() < 6 * 32
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl"):
            kept = path.read_bytes().replace(b" ", b"").replace(b"\n", b"")
            assert b"[7,3,0]" not in kept and b"[5,1,0]" not in kept and b"by-class" not in kept
    unaffordable = {**FIXED, "max_epsilon": (accounted(Z, 1) + both(1)) / 2}
    with pytest.raises(OptionsError, match=r"the first round alone spends .* Raise noise-multiplier, here or in"):
        loop(grid, tmp_path / "other", privacy=unaffordable, **asked)


def test_a_run_that_goes_back_goes_on_with_other_devices_and_pays_for_both(tmp_path):
    from edgeloop.federated.rounds.journal.branch import go_back

    loop(three(), tmp_path, rounds=2).run()
    go_back(tmp_path, 1)
    loop(PlayedGrid({n: honest(n) for n in range(4)}), tmp_path, rounds=2).run()
    privacy = read_rounds(tmp_path)[-1].privacy
    assert (privacy.releases, privacy.epsilon) == (3, pytest.approx(accounted(Z, 3), abs=1e-6))


def test_what_no_step_moves_stays_as_it_was():
    """A variance with noise would be negative; and a frozen layer, or a statistic, takes nothing of the norm."""
    base = {"w000": np.ones(4, np.float32), "w001": np.full(40, 1e-3, np.float32)}
    found = collected(private_mean(base, 1.0, 0.0, trained=("w000",)), base, [0.5])
    np.testing.assert_array_equal(found["w000"], np.full(4, 1.5, np.float32))  # norm 1: not clipped
    noisy = collected(private_mean(base, 1.0, Z, trained=("w000",)), base, [0.5])
    assert all(array["w001"].tobytes() == base["w001"].tobytes() for array in (found, noisy))
    assert (noisy["w000"] != 1.5).all()


def test_the_adaptive_norm_goes_to_its_quantile(tmp_path):
    """Updates of norm sqrt(15) / 10 = 0.387 from all devices: a smaller norm grows, a larger one shrinks."""
    from edgeloop.federated.rounds.privacy.private_mean import next_norm

    # Andrew et al. 2021: C exp(-0.2 (b - 0.5)), with b = 0 and b = 1
    assert next_norm(0.1, 0, 10, 0.5, 0.2, 0.0) == pytest.approx(0.1 * math.exp(0.1))
    assert next_norm(0.1, 10, 10, 0.5, 0.2, 0.0) == pytest.approx(0.1 * math.exp(-0.1))
    nodes = {
        n: lambda m: reply_of({k: a.numpy() + np.float32(0.1) for k, a in m.content["arrays"].items()})
        for n in range(3)
    }
    for start in (0.01, 10.0):
        out = tmp_path / str(start)
        # noise of 1e-3 on the count of 3; with 2e-4 on the updates, the norms stay what they are
        adaptive = {**FIXED, "mode": PrivacyMode.CENTRAL_ADAPTIVE, "clipping_norm": start, "noise_multiplier": 2e-4}
        adaptive |= {"clip_count_stddev": 1e-3, "clipping_learning_rate": 1.0}
        loop(PlayedGrid(nodes), out, rounds=2, privacy=adaptive).run()
        loop(PlayedGrid(nodes), out, rounds=12, privacy=adaptive).run()
        norms = [record.privacy.clipping_norm for record in read_rounds(out)]
        assert norms[1:] == [record.privacy.next_clipping_norm for record in read_rounds(out)][:-1]
        # each step multiplies by exp(+-0.5), and 12 of them cross a factor of 40
        assert math.sqrt(15) / 10 * math.exp(-0.51) < norms[-1] < math.sqrt(15) / 10 * math.exp(0.51)


def test_a_device_clips_and_adds_noise_itself(monkeypatch):
    base, trained = {"w000": np.ones(40_000, np.float32)}, {"w000": np.full(40_000, 2, np.float32)}
    # norm 200 is scaled to 1: 1/200 an element, beside noise of 1e-9 and float32's step of 2^-23 above 1
    quiet = with_local_noise(base, trained, 1.0, 1e-9)["w000"]
    np.testing.assert_allclose(quiet, 1 + 1 / 200, rtol=0, atol=2**-23)
    assert not np.array_equal(*(with_local_noise(base, trained, 1.0, Z)["w000"] for _ in range(2)))
    unchanged = with_local_noise(base, base, 1.0, 1e-9)["w000"]
    np.testing.assert_array_equal(unchanged, base["w000"])  # and no division by its norm of zero
    seeded = np.random.default_rng(1)  # fixed: no chance decides
    monkeypatch.setattr(np.random, "default_rng", lambda: seeded)
    change = with_local_noise(base, trained, 1.0, Z)["w000"].astype(np.float64) - 1
    # mean and deviation of 40,000 samples
    assert abs(change.mean() - 1 / 200) < 4 * Z / 200 and abs(change.std() / Z - 1) < 4 / math.sqrt(80_000)


def test_local_noise_is_asked_for_and_every_attempt_is_charged(tmp_path):
    told = []

    def node(message):
        config = message.content["config"]
        told.append((config["clipping-norm"], config["noise-multiplier"]))
        return honest(1)(message) if len(told) > 1 else None

    local = {**FIXED, "mode": PrivacyMode.LOCAL, "noise_multiplier": 1.0}
    loop(PlayedGrid({1: node}), tmp_path, rounds=1, privacy=local).run()
    (record,) = read_rounds(tmp_path)
    assert told == [(0.5, 1.0)] * 2 and record.attempt == 2
    # whatever replaces an update moves it by 2 clipping norms: the noise is half of its multiplier in that
    assert record.privacy.epsilon == pytest.approx(accounted(0.5, 2), abs=1e-6)


def test_a_first_round_whose_attempts_spend_the_budget_says_so(tmp_path):
    local = {**FIXED, "mode": PrivacyMode.LOCAL, "max_epsilon": accounted(Z / 2, 1) + 1e-6}
    with pytest.raises(DeviceError, match=r"round 1 has no quorum after 1 of 3 .*; max-epsilon allows no other"):
        loop(PlayedGrid({1: lambda m: None}), tmp_path, privacy=local).run()
    with pytest.raises(DeviceError, match="round 1 has no quorum, and max-epsilon allows no other attempt"):
        loop(three(), tmp_path, privacy=local).run()


def test_a_later_round_whose_attempts_spend_the_budget_is_no_success_and_says_who_was_refused(tmp_path):
    local = {**FIXED, "mode": PrivacyMode.LOCAL, "max_epsilon": accounted(Z / 2, 2) + 1e-6}

    def node(message):
        bad = reply_of({**zeros(), "w000": np.full((4, 3), np.nan, np.float32)})
        return bad if message.content["config"]["server-round"] == 2 else honest(1)(message)

    says = "round 2 has no quorum after 1 of 3 attempts: 0 of 1 .*: 1 not-finite .*; max-epsilon allows no other"
    with pytest.raises(DeviceError, match=says) as raised:
        loop(PlayedGrid({1: node}), tmp_path, privacy=local).run()
    assert "--resume ends the run" in raised.value.advice and read_state(tmp_path) == "running"
    loop(PlayedGrid({1: node}), tmp_path, privacy=local).run()
    assert (len(read_rounds(tmp_path)), read_state(tmp_path)) == (1, "privacy-budget-spent")


def test_noise_that_the_guard_would_refuse_is_refused_before_the_run():
    from edgeloop.federated.rounds.privacy.private_rounds import PrivateRounds

    local = PrivacyOptions(**{**FIXED, "mode": PrivacyMode.LOCAL, "noise_multiplier": 10.0})
    private = PrivateRounds(local, 3, 3)
    # 10 * 0.5 * sqrt(15) = 19.4, and the guard allows 10 times a norm of 1
    with pytest.raises(OptionsError, match=r"adds about 19\.4 to the weights \(L2\), and the guard allows 10"):
        private.check_guard(zeros(), GuardOptions())
    private.check_guard(zeros(), GuardOptions(max_norm_ratio=20))
