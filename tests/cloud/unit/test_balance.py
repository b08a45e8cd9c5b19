"""Which cuts divide costs best, against every way to cut."""

from itertools import combinations, pairwise
from random import Random

import pytest

from edgeloop.cloud.train.parallel.balance import bubble_in_theory, choose_cuts
from edgeloop.errors import OptionsError


def largest(costs, cuts):
    ends = [0, *cuts, len(costs)]
    return max(sum(costs[a:b]) for a, b in pairwise(ends))


def test_costs_of_3_1_1_3_are_cut_in_the_middle_and_never_inside_where_no_cut_is_allowed():
    assert choose_cuts([3, 1, 1, 3], 2, {1: 1, 2: 1, 3: 1}) == (2,)
    assert choose_cuts([3, 1, 1, 3], 2, {1: 1, 3: 2}) == (1,)  # both leave a stage of 5: fewer tensors cross at 1


@pytest.mark.parametrize("seed", range(40))
def test_no_other_cuts_have_a_cheaper_largest_stage(seed):
    random = Random(seed)
    costs = [random.randint(1, 9) for _ in range(random.randint(4, 9))]
    places = sorted(random.sample(range(1, len(costs)), random.randint(3, len(costs) - 1)))
    stages = random.randint(1, len(places) + 1)
    cuts = choose_cuts(costs, stages, dict.fromkeys(places, 1))
    assert len(cuts) == stages - 1
    assert set(cuts) <= set(places)
    assert largest(costs, cuts) == min(largest(costs, ways) for ways in combinations(places, stages - 1))


def test_more_stages_than_places_to_cut_are_refused_with_the_largest_number_that_fits():
    with pytest.raises(OptionsError, match="can be cut at 1 places; 4 stages need 3") as error:
        choose_cuts([1, 1, 1, 1], 4, {2: 1})
    assert "at most 2 stages" in error.value.advice


def test_two_stages_and_four_micro_batches_wait_a_fifth_of_the_time():
    assert bubble_in_theory(2, 4) == pytest.approx(0.2)  # (2 - 1) / (4 + 2 - 1)
