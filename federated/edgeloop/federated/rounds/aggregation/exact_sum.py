"""The exact sum of weighted float32 arrays, one at a time, and their mean correctly rounded.

The sum is exact, so it does not depend on the order of the arrays, and neither does any bit of the mean. Memory is that
of two float64 arrays as a rule (more where values span many magnitudes) and of the last TOGETHER arrays, however many
arrays are added.

The sum of n x, over arrays x with whole weights n < 2^29, is kept in bins B_0, B_1, ...: float64 arrays, of which B_j
holds whole multiples of the unit u_j = 2^e_j, with u_0 > u_1 > ... An array is added so:

1. With C = 1.5 * 2^52 u_0 and |x| <= 2^51 u_0, x + C lies in [2^52 u_0, 2^53 u_0), where float64 has the step u_0. So
   h = (x + C) - C is x rounded to a multiple of u_0.
2. r = x - h is exact: it is a multiple of the last bit of x, and |r| <= min(|x|, u_0 / 2). The next bin takes r the
   same way, and so on, until a bin whose unit divides the last bit of every x takes what is left as it is.
3. B_j += n h is exact while the sizes of all terms sum up to 2^52 u_j: products and partial sums in any order are
   whole multiples of u_j below 2^53 u_j, which float64 holds. So BLAS may add them as it likes. An upper bound of that
   sum is kept for each bin: n adds at most n (max|x| / u_0 + 1/2) in B_0, and n (u_(j-1) / (2 u_j) + 1/2) in the
   others. Before a bound would pass 2^52, the bins are split again over larger units, by the same steps.

Sources
    Demmel and Nguyen 2015, "Parallel Reproducible Summation", IEEE Trans. Computers 64(7): bins with fixed units.
    Ogita, Rump and Oishi 2005, "Accurate Sum and Dot Product", SIAM J. Sci. Comput. 26(6): TwoSum and VecSum.
"""

from __future__ import annotations

import math

import numpy as np

from edgeloop.errors import DataError
from edgeloop.federated.rounds.aggregation.rounding import rounded_quotient

TOGETHER = 8  # arrays that wait, and pass through the bins as one: the bins are larger than the processor's caches
BLOCK = 1 << 14  # elements of each at a time
MANTISSA = 52  # bits of a bin that are used; float64 has 53
ROOM = 6  # bits: bins have room for 64 times the weight seen, before they are split again
LARGEST_WEIGHT = (1 << 29) - 1
LARGEST_TOTAL = (1 << 40) - 1
NOT_FINITE = 0x7F800000  # float32 bits without the sign from here on: infinity and NaN


class ExactSum:
    """The sum of weight * array over arrays of one shape. Not thread-safe.

    Attributes:
        total: The sum of the weights, a whole number.
        count: How many arrays were added.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.total, self.count = shape, 0, 0
        self._size = math.prod(shape)
        self._units: list[int] = []  # e_j, descending
        self._bins: list[np.ndarray] = []
        self._bounds: list[float] = []  # of the sizes of all terms in B_j, in u_j
        self._waiting: list[tuple[np.ndarray, int]] = []

    def add(self, array: np.ndarray, weight: int) -> None:
        """Add `weight` times `array`, float32 of the sum's shape. The array must not change afterwards.

        Raises:
            DataError: Another dtype or shape, or a weight that is no whole number from 1 to 2^29 - 1.
        """
        if array.dtype != np.float32 or array.shape != self.shape:
            raise DataError(
                f"an array is {array.dtype} {array.shape}, expected float32 {self.shape}",
                advice="Add arrays of one model.",
            )
        if type(weight) is not int or not 1 <= weight <= LARGEST_WEIGHT or self.total + weight > LARGEST_TOTAL:
            raise DataError(f"a weight is {weight!r}", advice=f"Use whole numbers from 1 to {LARGEST_WEIGHT}.")
        self._waiting.append((np.ascontiguousarray(array).reshape(-1), weight))
        self.total, self.count = self.total + weight, self.count + 1
        if len(self._waiting) == TOGETHER:
            self._add_waiting()

    def mean(self) -> np.ndarray:
        """The sum over the total weight, rounded to the nearest float32, ties to even; zero is +0.

        Raises:
            DataError: Nothing was added, or an array holds NaN or infinity.
        """
        if not self.total:
            raise DataError("there is nothing to average", advice="Wait for a reply.")
        self._add_waiting()
        mean = np.zeros(self._size, np.float32)
        for start in range(0, self._size, BLOCK) if self._bins else ():
            mean[start : start + BLOCK] = rounded_quotient([b[start : start + BLOCK] for b in self._bins], self.total)
        return mean.reshape(self.shape)

    def _add_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        spans = [_exponents(array) for array, _ in waiting]
        high = max((high for high, _ in spans if high is not None), default=None)
        if high is None:
            return
        low, weights = min(low for _, low in spans), np.array([weight for _, weight in waiting], np.float64)
        self._make_room(float(weights.sum()), high, low)
        block = min(BLOCK, self._size)
        rest, part = np.empty((len(waiting), block)), np.empty((len(waiting), block))
        for start in range(0, self._size, block):
            size = min(block, self._size - start)
            for row, (array, _) in enumerate(waiting):
                rest[row, :size] = array[start : start + size]
            self._fold(rest[:, :size], part[:, :size], weights, start, low)

    def _fold(self, rest: np.ndarray, part: np.ndarray, weights: np.ndarray, start: int, low: int) -> None:
        """Add the weighted rows of `rest` [k, n], multiples of 2^low, to n elements of the bins from `start` on.

        Both arrays are overwritten.
        """
        for unit, bin in zip(self._units, self._bins, strict=True):
            place = bin[start : start + rest.shape[1]]
            if unit <= low:
                place += weights @ rest
                return
            shift = math.ldexp(1.5, 52 + unit)
            np.add(rest, shift, out=part)
            part -= shift
            rest -= part
            place += weights @ part

    def _make_room(self, weight: float, high: int, low: int) -> None:
        """Bins for arrays below 2^high, of multiples of 2^low, of `weight` together; their bounds then count them."""
        if not self._units or not self._fits(weight, high):
            self._split_again(weight, high, low)
            self._fits(weight, high)
        while self._units[-1] > low:
            self._units.append(self._next_unit())
            self._bins.append(np.zeros(self._size))
            self._bounds.append(weight * (math.ldexp(0.5, self._units[-2] - self._units[-1]) + 0.5))

    def _fits(self, weight: float, high: int) -> bool:
        sizes = [math.ldexp(1.0, high - self._units[0])]
        sizes += [math.ldexp(0.5, a - b) for a, b in zip(self._units, self._units[1:], strict=False)]
        bounds = [bound + weight * (size + 0.5) for bound, size in zip(self._bounds, sizes, strict=True)]
        if max(bounds) > 2.0**MANTISSA:
            return False
        self._bounds = bounds
        return True

    def _next_unit(self) -> int:
        """A weight n leaves at most n u_j / 2 to the next bin."""
        return self._units[-1] + (self.total << ROOM).bit_length() - MANTISSA

    def _split_again(self, weight: float, high: int, low: int) -> None:
        """New bins with room for many more arrays like these; what the old ones held is in them, exactly."""
        old, finest = self._bins, min([low, *self._units[-1:]])
        largest = sum(map(_largest, old)) + math.ldexp(weight, high)
        self._units = [math.frexp(largest)[1] + ROOM + 1 - MANTISSA]
        while self._units[-1] > finest:
            self._units.append(self._next_unit())
        self._bins = [np.zeros(self._size) for _ in self._units]
        for bin in old:
            for start in range(0, self._size, BLOCK):
                rest = bin[None, start : start + BLOCK]
                self._fold(rest, np.empty_like(rest), np.ones(1), start, finest)
        self._bounds = [math.ldexp(_largest(bin), -unit) for bin, unit in zip(self._bins, self._units, strict=True)]


def _largest(bin: np.ndarray) -> float:
    return float(np.abs(bin).max(initial=0.0))


def _exponents(flat: np.ndarray) -> tuple[int | None, int]:
    """(high, low): every value is below 2^high in size and a multiple of 2^low; high is None where all are zero.

    Raises:
        DataError: NaN or infinity.
    """
    most, least = 0, NOT_FINITE
    for start in range(0, flat.size, 4 * BLOCK):
        bits = flat[start : start + 4 * BLOCK].view(np.uint32) & np.uint32(0x7FFFFFFF)
        most = max(most, int(bits.max()))
        bits -= np.uint32(1)  # zero becomes the largest number
        least = min(least, int(bits.min()) + 1)
    if most >= NOT_FINITE:
        raise DataError("an array holds NaN or infinity", advice="Refuse it before it is added.")
    if not most:
        return None, 0
    # biased exponent b: below 2^(b - 126), last bit 2^(b - 150); subnormal numbers have b = 0 and the last bit of b = 1
    return max(most >> 23, 1) - 126, max(least >> 23, 1) - 150
