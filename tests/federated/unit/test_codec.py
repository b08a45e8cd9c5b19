"""Updates as fewer bytes: values by hand, what is lost, and what a hostile sender can do."""

import numpy as np
import pytest

from edgeloop.errors import DataError
from edgeloop.federated.device.compression.codec import Codec, decode, encode, largest, most_values
from edgeloop.federated.device.compression.positions import pack, packed_bytes, unpack
from edgeloop.federated.device.compression.quantize import dequantize, quantize

SPARSE = [Codec.TOP_K, Codec.TOP_K_INT8]
CODECS = [Codec.INT8, *SPARSE]
SIZES = (700, 40, 1)


def normal(seed=0):
    return np.random.default_rng(seed).normal(0, 0.01, sum(SIZES)).astype(np.float32)


def encoded(row, codec, share=0.05, sizes=SIZES, seed=0):
    return encode(row, sizes, codec, share, np.random.default_rng(seed))


def test_int8_of_four_numbers_by_hand():
    # the largest is 127, so the scale is 1
    steps, scales = quantize(np.array([127, -63, 0.6, -0.4], np.float32))
    assert steps.tolist() == [127, -63, 1, 0] and scales.tolist() == [1.0]
    # 2.54 / 127 = 0.02: -1.27 / 0.02 = -63.5 is rounded to even, 0.011 / 0.02 to 1
    steps, scales = quantize(np.array([2.54, -1.28, 0.011, 0], np.float32))
    assert steps.tolist() == [127, -64, 1, 0] and scales[0] == np.float32(0.02)
    np.testing.assert_allclose(dequantize(steps, scales), [2.54, -1.28, 0.02, 0], rtol=2**-22)


def test_a_large_value_costs_accuracy_to_its_own_block_alone():
    row = np.full(1024, 0.01, np.float32)
    row[0] = 1000
    found = dequantize(*quantize(row))
    assert found[0] == 1000 and not found[1:512].any()
    np.testing.assert_allclose(found[512:], 0.01, rtol=2**-22)


def test_stochastic_rounding_is_right_in_the_mean_and_the_same_for_a_seed():
    row = np.array([127, 0.25, -0.25, 3.75], np.float32)  # scale 1
    found = dequantize(*quantize(np.tile(row, 4096), np.random.default_rng(0))).reshape(-1, 4).mean(axis=0)
    # the standard error of a mean of 4,096 coins of 1/4 is 0.0068: five of them
    np.testing.assert_allclose(found, row, atol=0.034)
    again = [quantize(normal(), np.random.default_rng(3))[0].tobytes() for _ in range(2)]
    assert again[0] == again[1]


def test_zeros_and_the_smallest_numbers_stay_finite():
    for value in (0.0, 1e-45, -1e-40, 3e38):
        found = dequantize(*quantize(np.array([value, 0], np.float32), np.random.default_rng(0)))
        assert np.isfinite(found).all() and found[1] == 0 and found[0] == pytest.approx(value, rel=1e-5, abs=1e-38)


def test_top_k_of_ten_by_hand():
    row = np.array([0, -9, 3, 0.5, 8, -3, 3, 0, 1, 0], np.float32)
    assert largest(row, 2).tolist() == [1, 4]
    assert largest(row, 4).tolist() == [1, 2, 4, 5], "of equal ones the first"
    assert largest(row, 9).tolist() == [1, 2, 3, 4, 5, 6, 8], "zeros are not sent"
    assert largest(np.zeros(3, np.float32), 2).tolist() == []
    record = encoded(row, Codec.TOP_K, share=0.2, sizes=(6, 4))
    assert record["count"] == 2 and np.frombuffer(record["values"], "<f4").tolist() == [-9, 8]
    assert decode(record, (6, 4), 0.2).tolist() == [0, -9, 0, 0, 8, 0, 0, 0, 0, 0]


def test_positions_by_hand():
    # 3 of 16: floor(log2(16 / 3)) = 2 low bits. 1 = 0|01, 6 = 1|10, 15 = 3|11: bits 0, 2 and 5 of 15 // 4 + 3 = 6
    assert pack(np.array([1, 6, 15]), 16) == bytes([0b10100100, 0b01101100])
    assert unpack(bytes([0b10100100, 0b01101100]), 3, 16).tolist() == [1, 6, 15]


@pytest.mark.parametrize(("count", "size"), [(0, 5), (1, 1), (5, 5), (1, 10**6), (3, 17), (1000, 100_003), (999, 1024)])
def test_positions_come_back(count, size):
    rng = np.random.default_rng(count)
    for _ in range(3):
        positions = np.sort(rng.choice(size, count, replace=False))
        packed = pack(positions, size)
        assert len(packed) == packed_bytes(count, size)
        np.testing.assert_array_equal(unpack(packed, count, size), positions)


def test_one_percent_of_mcmahans_cnn_is_fifty_times_smaller():
    size = 1_663_370
    count = most_values(0.01, size)
    # 2 + log2(100) bits of a position at most
    assert packed_bytes(count, size) * 8 / count < 8.65
    assert 4 * size / (packed_bytes(count, size) + 4 * count) > 78
    assert 4 * size / (packed_bytes(count, size) + count * (1 + 4 / 512)) > 190


def test_int8_errs_by_less_than_a_step():
    row = normal()
    found = decode(encoded(row, Codec.INT8), SIZES, 1)
    for part, back in zip(np.split(row, [512, 700, 740]), np.split(found, [512, 700, 740]), strict=True):
        assert np.abs(part - back).max() <= np.abs(part).max() / 127 * (1 + 2**-20)


@pytest.mark.parametrize("codec", SPARSE)
def test_what_was_sent_and_what_is_left_sum_up_to_all_updates(codec):
    """Error feedback: sum of sent + residual = sum of updates."""
    total, sent, residual = np.zeros(sum(SIZES)), np.zeros(sum(SIZES)), np.zeros(sum(SIZES), np.float32)
    for number in range(50):
        update = normal(number)
        total += update
        wanted = update + residual
        found = decode(encoded(wanted, codec), SIZES, 0.05)
        residual = wanted - found
        sent += found
        assert np.count_nonzero(found) <= most_values(0.05, sum(SIZES))
    # 50 roundings of two float32 operations on numbers below 1
    np.testing.assert_allclose(sent + residual, total, atol=100 * 2**-24)
    assert np.abs(sent).sum() > 0.5 * np.abs(total).sum(), "most has been sent"


@pytest.mark.parametrize("codec", CODECS)
def test_an_update_of_zeros_travels(codec):
    row = np.zeros(sum(SIZES), np.float32)
    np.testing.assert_array_equal(decode(encoded(row, codec), SIZES, 0.05), row)


NAN, TINY = np.float32("nan").tobytes(), np.float32(-1).tobytes()
HOSTILE = {
    "unknown codec": (Codec.INT8, {"codec": "zip"}, "codec is 'zip'"),
    "codec of another type": (Codec.INT8, {"codec": 7}, "codec is '7'"),
    "none": (Codec.INT8, {"codec": "none"}, "codec is 'none'"),
    "another key": (Codec.INT8, {"more": b""}, "unknown key 'more'"),
    "keys of another codec": (Codec.INT8, {"codec": "top-k"}, "key 'count'"),
    "too many values": (Codec.INT8, {"values": bytes(10**6)}, "values is 1000000 bytes, expected 741 bytes"),
    "no bytes": (Codec.INT8, {"values": "x" * 741}, "values is of type str"),
    "a scale of NaN": (Codec.INT8, {"scales": NAN * 4}, "a scale is NaN"),
    "a scale below 0": (Codec.INT8, {"scales": TINY * 4}, "below 0"),
    "an infinite scale": (Codec.INT8, {"scales": np.float32("inf").tobytes() * 4}, "a scale is NaN, infinite"),
    "a scale too few": (Codec.INT8, {"scales": bytes(12)}, "scales is 12 bytes, expected 16 bytes"),
    "a huge count": (Codec.TOP_K, {"count": 10**15}, "count is 1000000000000000, expected 0 to 38"),
    "a count below 0": (Codec.TOP_K, {"count": -1}, "count is -1"),
    "a count of true": (Codec.TOP_K, {"count": True}, "count is True"),
    "a count of 1.0": (Codec.TOP_K, {"count": 1.0}, "count is 1.0"),
    "more than was asked for": (Codec.TOP_K, {"count": 39}, "expected 0 to 38"),
    "a value of NaN": (Codec.TOP_K, {"values": NAN * 38}, "a value is NaN"),
    "no index": (Codec.TOP_K, {"indices": b""}, "indices is 0 bytes"),
    "indices of ones": (Codec.TOP_K, {"indices": b"\xff" * packed_bytes(38, 741)}, "positions are marked"),
    "indices of zeros": (Codec.TOP_K, {"indices": bytes(packed_bytes(38, 741))}, "0 positions are marked"),
    "a scale of NaN beside indices": (Codec.TOP_K_INT8, {"scales": NAN}, "a scale is NaN"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_record_is_refused_for_what_it_is(what):
    codec, change, said = HOSTILE[what]
    record = {**encoded(normal(), codec), **change}
    with pytest.raises(DataError, match=said):
        decode(record, SIZES, 0.05)


@pytest.mark.parametrize("name", ["values", "indices", "scales", "count", "codec"])
def test_a_key_that_is_missing_is_named(name):
    record = encoded(normal(), Codec.TOP_K_INT8)
    del record[name]
    with pytest.raises(DataError, match="codec" if name == "codec" else f"no key '{name}'"):
        decode(record, SIZES, 0.05)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        # 2 of 16 have 3 low bits: an upper row of 3 bits in a byte of its own, then 2 x 3 bits
        (bytes([0b11000000, 0b01101100]), "there twice, out of order"),  # 3, 3
        (bytes([0b11000000, 0b01100100]), "there twice, out of order"),  # 3, 1
        (bytes([0b10010000, 0b01101100]), "2 positions are marked"),  # a bit beyond the row
        (bytes([0b11100000, 0b01101100]), "3 positions are marked"),
    ],
)
def test_positions_that_nobody_packs_are_refused(data, said):
    with pytest.raises(DataError, match=said):
        unpack(data, 2, 16)


def test_a_position_beyond_the_size_is_refused():
    # 2 of 13: 2 low bits, an upper row of 12 // 4 + 2 = 5 bits: 0 is 0|00, 14 is 3|10
    with pytest.raises(DataError, match="not below 13"):
        unpack(bytes([0b10001000, 0b00100000]), 2, 13)


@pytest.mark.parametrize("codec", CODECS)
def test_random_bytes_are_refused_or_are_finite_numbers(codec):
    good, rng = encoded(normal(), codec), np.random.default_rng(7)
    refused = 0
    for _ in range(400):
        record = dict(good)
        for key in rng.choice([k for k, v in good.items() if isinstance(v, bytes)], 2):
            data = bytearray(record[str(key)])
            for place in rng.integers(0, len(data), rng.integers(1, 9)):
                data[place] = rng.integers(0, 256)
            record[str(key)] = bytes(data[: len(data) - int(rng.integers(0, 5) == 0)])
        try:
            row = decode(record, SIZES, 0.05)
        except DataError:
            refused += 1
        else:
            assert row.shape == (741,) and np.isfinite(row).all()
    assert 50 < refused < 400
