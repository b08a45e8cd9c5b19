"""Options of parameter servers that contradict each other end when they are built."""

import pytest

from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions
from edgeloop.cloud.train.servers.server_updates import check_rounds
from edgeloop.cloud.train.servers.staleness import ParameterServerConfig, Stale, Updates
from edgeloop.errors import OptionsError


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"stale_limit": 0}, "stale-limit is 0"),  # with two workers it would drop two thirds of all gradients
        ({"backup_workers": -1}, "backup-workers is -1"),
        ({"rate_factor": 0.0}, "rate-factor"),
        ({"updates": Updates.SYNCHRONOUS, "stale": Stale.DROP}, "has no stale gradients"),
        ({"updates": Updates.SYNCHRONOUS, "one_worker_epochs": 1}, "has no stale gradients"),
        ({"backup_workers": 1}, "are of synchronous rounds alone"),
    ],
)
def test_contradictions_are_refused(given, found):
    with pytest.raises(OptionsError, match=found):
        ParameterServerConfig(**given)


def test_a_round_keeps_one_worker_or_more_and_tables_have_none():
    rounds = ParameterServerConfig(updates=Updates.SYNCHRONOUS, backup_workers=2)
    check_rounds(rounds, 3, [])
    with pytest.raises(OptionsError, match="backup-workers is 2, and the cluster has 2 workers"):
        check_rounds(rounds, 2, [])
    with pytest.raises(OptionsError, match="partitioned embeddings have no synchronous rounds"):
        check_rounds(rounds, 3, ["table"])


def test_what_is_lost_at_most_is_the_interval_also_while_a_checkpoint_is_being_written():
    # begun every 5 steps: when the one of step 10 is half written, the one of step 5 is whole
    assert CheckpointOptions(every_steps=10).spacing == 5
    assert CheckpointOptions(every_steps=7).spacing == 4
    assert CheckpointOptions(every_steps=10, wait_until_written=True).spacing == 10
    assert CheckpointOptions().spacing == 0
    with pytest.raises(OptionsError, match="keep is 0"):
        CheckpointOptions(keep=0)
