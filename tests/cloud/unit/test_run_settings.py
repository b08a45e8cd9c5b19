"""A run goes on only with the settings that it began with."""

import pytest

from edgeloop.cloud.train.run.run_folder import CONFIG, check_same
from edgeloop.errors import WriteError


def test_a_run_of_other_settings_is_refused(tmp_path):
    (tmp_path / CONFIG).write_text("[loop]\nepochs = 2\n")
    check_same(tmp_path, "[loop]\nepochs = 2\n")
    with pytest.raises(WriteError, match="holds a training with other settings"):
        check_same(tmp_path, "[loop]\nepochs = 3\n")
