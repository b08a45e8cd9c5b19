"""What devices tell of their data: what is believed, what a round makes of it, and what a person sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.errors import OptionsError
from edgeloop.federated.device.options import DeviceOptions, from_node_config, to_node_config
from edgeloop.federated.device.statistics import Tell, label_counts
from edgeloop.federated.rounds.federation import read_federation
from edgeloop.federated.rounds.privacy.entropy import system_entropy
from edgeloop.federated.rounds.progress.class_page import accuracies, by_class, class_part
from edgeloop.federated.rounds.records import ClientRecord, RoundRecord, round_from_json
from edgeloop.federated.rounds.statistics import summary
from edgeloop.federated.rounds.statistics.noisy_summary import NoisySummary
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.round_statistics import RoundStatistics
from edgeloop.federated.rounds.statistics.summary import Summary
from edgeloop.federated.rounds.statistics.told import Labels, check_labels, told_of

ASKED, THREE = StatisticsOptions(tell=Tell.EVALUATION), Labels(3)
MOMENTS = StatisticsOptions(tell=Tell.EVALUATION, label_moments=True)
GOOD = {"examples-by-class": [2, 0, 3], "correct-by-class": [1, 0, 3]}


def test_counts_that_add_up_to_the_examples_are_believed():
    told = told_of(GOOD, 5, THREE, ASKED)
    assert told.examples.tolist() == [2, 0, 3] and told.correct.tolist() == [1, 0, 3]
    words = told_of(GOOD, 1, Labels(3, each=5), ASKED)  # one text of five words
    assert words.examples.tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"examples-by-class": [2, -1, 4]}, "holds -1"),
        ({"examples-by-class": [2.0, 0.0, float("nan")]}, "holds 2.0"),
        ({"examples-by-class": [2, 3]}, "is 2 numbers, expected one count for each of 3 classes"),
        ({"examples-by-class": 5}, "is 5, expected one count"),
        ({"examples-by-class": [2, 0, 4]}, "adds up to 6, and the device reports 5 labels"),
        ({"examples-by-class": [1 << 62, 0, 0]}, "holds 4611686018427387904"),
        ({"correct-by-class": [1, 1, 3]}, "correct-by-class has more labels of a class than examples-by-class"),
        ({"personal-correct-by-class": [9, 0, 0]}, "personal-correct-by-class has more labels"),
        ({"label-mean": 0.5}, "'label-mean' is told, and was not asked for"),
    ],
)
def test_counts_of_a_hostile_device_are_refused(wrong, says):
    assert says in told_of({**GOOD, **wrong}, 5, THREE, ASKED)


def test_what_was_not_asked_for_and_what_is_missing_is_refused():
    assert "'correct-by-class' is told" in told_of(GOOD, 5, THREE, StatisticsOptions(tell=Tell.EXAMPLES))
    assert told_of({"examples-by-class": [2, 0, 3]}, 5, THREE, ASKED) == "it lacks correct-by-class"
    assert "is told" in told_of(GOOD, 5, THREE, StatisticsOptions(tell=Tell.NONE))
    assert "is told" in told_of(GOOD, 5, Labels(), ASKED), "a regressor has no classes"


@pytest.mark.parametrize(
    ("mean", "variance", "says"),
    [(float("nan"), 1.0, "label-mean is nan"), (0.0, -1.0, "label-variance is -1.0"), (1e31, 0.0, "label-mean is 1e")],
)
def test_moments_of_a_hostile_device_are_refused(mean, variance, says):
    assert says in told_of({"label-mean": mean, "label-variance": variance}, 5, Labels(), MOMENTS)


def summed(told, labels=THREE, asked=ASKED, found=None) -> Summary | NoisySummary:
    """Of replies {(node, examples): record}."""
    found = found or Summary(labels, asked)
    for (node, examples), record in told.items():
        reply = SimpleNamespace(content=SimpleNamespace(metric_records={"statistics": record}))
        found.add(reply, SimpleNamespace(node=node, device=node, examples=examples))
    return found


def test_a_round_adds_up_what_was_told():
    record = summed({(2, 5): GOOD, (1, 1): {"examples-by-class": [0, 1, 0], "correct-by-class": [0, 0, 0]}}).record()
    assert (record.devices, record.examples, record.correct) == (2, (2, 1, 3), (1, 0, 3))
    assert [client.device for client in record.clients] == [1, 2]
    assert Summary(THREE, ASKED).record() is None


def test_single_devices_are_left_out_where_their_counts_are_too_many(monkeypatch):
    monkeypatch.setattr(summary, "LISTED", 12)  # two devices of three classes, two counts each
    told = {(node, 5): GOOD for node in range(1, 4)}
    assert len(summed(dict(list(told.items())[:2])).record().clients) == 2
    record = summed(told).record()
    assert record.clients == () and record.examples == (6, 0, 9)


def test_mean_and_variance_are_those_of_all_labels_together():
    parts = [np.array([1.0, 2.0, 6.0]), np.array([-4.0])]
    told = {(n, len(y)): {"label-mean": float(y.mean()), "label-variance": float(y.var())} for n, y in enumerate(parts)}
    record = summed(told, Labels(), MOMENTS).record()
    # 1 + 2 + 6 - 4 = 5 over 4; squares 57 / 4 - 1.25^2 = 12.6875; a few roundings of doubles below 16: 1e-14
    assert record.label_mean == pytest.approx(1.25, abs=1e-14)
    assert record.label_variance == pytest.approx(12.6875, abs=1e-13)


def shown() -> RoundRecord:
    own = {**GOOD, "personal-correct-by-class": [2, 0, 3]}
    refused = {"examples-by-class": [7, 0, 0], "correct-by-class": [0, 0, 0]}
    told = summed(
        {(0, 5): own, (1, 1): {"examples-by-class": [0, 1, 0], "correct-by-class": [0, 0, 0]}, (9, 2): refused}
    )
    clients = tuple(ClientRecord(device, 5, 0.5, 1.0) for device in (0, 1, 9))
    return RoundRecord(4, "rounds/round-4.npz", clients, statistics=told.record())


def test_the_record_of_a_round_keeps_what_was_told():
    assert round_from_json(shown().to_json()) == shown()
    assert "statistics" not in RoundRecord(1, "f", (ClientRecord(0, 1, 0.5, 1.0),)).to_json()


def test_the_page_and_tensorboard_show_classes_and_devices():
    record = shown()
    assert accuracies(record.statistics) == {"accuracy on devices": 4 / 6, "personal accuracy on devices": 1.0}
    numbers = by_class(record.statistics)
    assert (numbers["labels of class/2"], numbers["recall of class/0"], numbers["recall of class/1"]) == (3, 0.5, 0)
    page = class_part([record, RoundRecord(5, "rounds/round-5.npz", ())])
    assert "in round 4" in page and "2 of 3 devices told of their data" in page
    assert "<td>50.0%</td><td>100.0%</td>" in page  # class 0: one of two, and both with personal layers
    assert "device 0, class 2: 3</title>" in page and page.count("<rect") == 6
    assert "<td>9</td>" in page and "adds up to 7" in page
    assert class_part([RoundRecord(5, "rounds/round-5.npz", ())]) == ""


def test_private_rounds_ask_for_no_counts_but_with_noise(tmp_path):
    path = tmp_path / "f.toml"
    lines = '[model]\nbundle = "b"\n[devices]\nshards = ["a.npz"]\n'
    private = '[privacy]\nmode = "local"\nnoise-multiplier = 1.0\nclipping-norm = 1.0\ndelta = 1e-5\n'
    path.write_text(lines + private)
    options = read_federation(path).rounds_options(tmp_path / "out")
    assert options.statistics.resolved(private=True).tell is Tell.NONE
    assert options.statistics.resolved(private=False).tell is Tell.EVALUATION
    path.write_text(lines + private + '[statistics]\ntell = "examples"\n')
    with pytest.raises(OptionsError, match="asks devices for exact counts"):
        read_federation(path).rounds_options(tmp_path / "out")
    noise = "[statistics]\nnoise-multiplier = 10\nclipping-norm = 300\n"
    path.write_text(lines + private.replace("local", "central-fixed") + noise)
    found = read_federation(path).rounds_options(tmp_path / "out").statistics
    assert (found.noise_stddev, found.resolved(private=True).tell) == (3000, Tell.EVALUATION)


HISTOGRAM = {"examples-by-class": [3, 0, 4], "correct-by-class": [0, 0, 0]}  # norm 5
MANY = {"examples-by-class": [0, 1_200_000, 0], "correct-by-class": [0, 900_000, 0]}  # norm 1,500,000
PRIVATE = {"noise_multiplier": 1e-12, "clipping_norm": 5.0}


def noisy(told, labels=THREE, *, entropy=lambda: bytes(64), **given):
    asked = StatisticsOptions(**{"tell": Tell.EVALUATION, **PRIVATE, **given})
    return summed(told, found=NoisySummary(labels, asked, entropy))


def test_all_counts_of_a_device_are_scaled_down_to_one_norm_and_added_up():
    # (3, 0, 4) stays; (1.2, 0.9) of millions becomes 5 (0.8, 0.6) = (4, 3). Whole steps of 5 / 2^30, rounded down, of
    # two devices: 1e-8; noise of 5e-12
    record = noisy({(1, 7): HISTOGRAM, (2, 1_200_000): MANY}).record()
    assert record.examples == pytest.approx((3, 4, 4), abs=1e-8)
    assert record.correct == pytest.approx((0, 3, 0), abs=1e-8)
    assert (record.devices, record.clipping_norm, record.noise_stddev) == (2, 5.0, 5e-12)
    labels_alone = noisy({(1, 7): {"examples-by-class": [3, 0, 4]}}, tell=Tell.EXAMPLES, clipping_norm=2.5).record()
    assert labels_alone.examples == pytest.approx((1.5, 0, 2), abs=1e-8) and labels_alone.correct == ()


def test_the_sum_of_counts_is_the_same_in_any_order():
    told = {(n, 3 * n + 2): {"examples-by-class": [n, 2, 2 * n], "correct-by-class": [n, 1, 0]} for n in range(1, 30)}
    assert noisy(told).record() == noisy(dict(reversed(told.items()))).record()


def test_noise_on_counts_has_the_stated_deviation_and_is_never_the_same():
    labels, zero = Labels(20_000), {"examples-by-class": [0] * 20_000, "correct-by-class": [0] * 20_000}

    def drawn(**more):
        record = noisy({(1, 0): zero}, labels, noise_multiplier=0.5, **more).record()
        return np.array(record.examples + record.correct)

    noise = drawn()  # fixed: no chance decides. Deviation 0.5 * 5; that of 40,000 samples varies by 1 / sqrt(80,000)
    assert abs(noise.std() / 2.5 - 1) < 4 / 80_000**0.5 and abs(noise.mean()) < 4 * 2.5 / 200
    np.testing.assert_array_equal(drawn(), noise)
    assert not np.array_equal(*(drawn(entropy=system_entropy) for _ in range(2)))


def test_sums_with_noise_say_nothing_of_single_devices():
    own = {**HISTOGRAM, "personal-correct-by-class": [3, 0, 4]}
    record = noisy({(1, 7): own, (2, 8): HISTOGRAM}).record()
    assert (record.devices, record.clients, record.personal_correct) == (1, (), ())
    (refused,) = record.refused
    assert refused.node == "2" and "7" not in refused.detail and "8" not in refused.detail
    assert noisy({(2, 8): HISTOGRAM}).record().examples == () and noisy({}).record() is None
    document = record.to_json()
    assert "clients" not in document and "personal_examples" not in document


def test_the_page_shows_sums_with_noise_as_what_they_are():
    told = RoundStatistics(
        3, examples=(40.0, -0.3, 20.0), correct=(44.0, 0.2, -1.0), clipping_norm=30.0, noise_stddev=6.0
    )
    record = RoundRecord(2, "rounds/round-2.npz", (ClientRecord(0, 1, 0.5, 1.0),) * 3, statistics=told)
    assert round_from_json(record.to_json()) == record
    numbers = by_class(told)
    assert (numbers["recall of class/0"], numbers["recall of class/2"]) == (1.0, 0.0)  # 44 / 40 and -1 / 20
    assert "recall of class/1" not in numbers and numbers["labels of class/1"] == -0.3
    assert accuracies(told) == {"accuracy on devices": pytest.approx(43.2 / 59.7)}
    page = class_part([record])
    assert "standard deviation of 6" in page and "L2 norm of 30" in page and "<rect" not in page
    faint = RoundStatistics(3, examples=(5.0, 5.0), correct=(5.0, 5.0), clipping_norm=30.0, noise_stddev=7.5)
    assert accuracies(faint) == {}, "10 is less than the deviation of the sum of both, 7.5 sqrt(2)"


def test_noise_for_nothing_is_refused():
    with pytest.raises(OptionsError, match="the labels of this model are no classes"):
        check_labels(Labels(), StatisticsOptions(**PRIVATE))
    check_labels(Labels(), StatisticsOptions())
    assert StatisticsOptions(**PRIVATE).resolved(private=True).tell is Tell.EVALUATION


def test_a_device_that_tells_nothing_stays_so_under_flowers_own_supernode():
    assert from_node_config(to_node_config(DeviceOptions("d.npz", no_statistics=True))).no_statistics
    assert not from_node_config(to_node_config(DeviceOptions("d.npz"))).no_statistics


def test_mean_and_variance_do_not_depend_on_the_order_of_the_replies():
    parts = [np.random.default_rng(n).normal(1e8, 1e-3, 10 + n) for n in range(50)]
    told = {(n, len(y)): {"label-mean": float(y.mean()), "label-variance": float(y.var())} for n, y in enumerate(parts)}
    found = [summed(dict(order), Labels(), MOMENTS).record() for order in (told.items(), reversed(told.items()))]
    assert found[0] == found[1]
    # what a device tells is rounded to 2^-27 (1e8 in float64), which moves the variance by 2 * 1e-3 * 2^-27 = 1.5e-11
    assert found[0].label_variance == pytest.approx(1e-6, abs=1e-7)


def test_the_record_names_a_limited_number_of_refusals():
    record = summed({(node, 7): GOOD for node in range(5_000)}).record()
    assert record.devices == 0 and len(record.refused) == 2_000


def test_devices_that_share_a_number_are_shown_by_their_node():
    found = Summary(THREE, ASKED)
    for node in (1234567890123456789, 7):
        reply = SimpleNamespace(content=SimpleNamespace(metric_records={"statistics": GOOD}))
        found.add(reply, SimpleNamespace(node=node, device=0, examples=5))
    page = class_part([RoundRecord(1, "rounds/round-1.npz", (), statistics=found.record())])
    assert ">node 1234567890123456789</text>" in page and "node 7, class 2: 3</title>" in page
    assert "device 0" not in page


def test_a_device_with_few_samples_does_not_tell_the_mean_of_its_labels():
    regressor, asked = SimpleNamespace(classes=None, tells_classes=False), {"label-moments": True}
    assert label_counts(np.arange(9.0), regressor, asked) == {}
    assert label_counts(np.arange(10.0), regressor, asked) == {"label-mean": 4.5, "label-variance": 8.25}
