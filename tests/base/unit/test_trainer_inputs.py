"""What a trainer takes as inputs, without a runtime."""

import numpy as np
import pytest

from edgeloop.errors import DataError
from edgeloop.runtime.agent.trainer import Trainer


def test_integers_that_the_type_of_an_input_does_not_hold_are_refused():
    trainer = Trainer.__new__(Trainer)
    trainer._inputs = {"ids": {"shape": np.array([4, 1]), "dtype": np.int32}}
    with pytest.raises(DataError, match="input ids runs from 0 to 4294967297, and the model takes int32"):
        trainer._input("ids", np.array([[0], [2**32 + 1]]), 2)  # NumPy would make 1 of it
    assert trainer._input("ids", np.array([[7], [2**31 - 1]]), 2).dtype == np.int32
