"""The alias, on a real MLflow database, when several runs want it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.succession import settle

NAME, ALIAS = "generator", "champion"


@pytest.fixture
def client(config: RegistryConfig) -> MlflowClient:
    found = MlflowClient(config.tracking_uri)
    found.create_registered_model(NAME)
    return found


def promoted(client: MlflowClient, score: float, compared_with: str = "none", protocol: str = "p") -> int:
    """A version as `register` makes it, before the alias is given."""
    tags = {"gate_result": "promote", "compared_with": compared_with, "score": f"{score:.6f}", "data_sha256": "d"}
    tags |= {"protocol_sha256": protocol, "weights_sha256": f"{score}{compared_with}"}
    return int(client.create_model_version(NAME, "file:///nowhere", tags=tags).version)


def champion(client: MlflowClient) -> int:
    return int(client.get_model_version_by_alias(NAME, ALIAS).version)


@pytest.mark.parametrize("scores", [(0.8, 0.9), (0.9, 0.8)])
def test_of_two_runs_the_better_one_is_champion_whichever_ends_first(client, scores):
    for score in scores:
        settle(client, NAME, ALIAS, mine=promoted(client, score))
    assert champion(client) == 1 + scores.index(0.9)


def test_of_six_runs_at_once_the_best_is_champion(client):
    scores = (0.81, 0.86, 0.83, 0.9, 0.82, 0.89)

    def run(score: float) -> None:
        settle(client, NAME, ALIAS, mine=promoted(client, score))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, scores))
    assert float(client.get_model_version_by_alias(NAME, ALIAS).tags["score"]) == 0.9


def test_a_late_hand_that_takes_the_alias_back_for_the_worse_one_corrects_itself(client):
    worse, better = promoted(client, 0.8), promoted(client, 0.9)
    settle(client, NAME, ALIAS, mine=better)
    client.set_registered_model_alias(NAME, ALIAS, str(worse))  # decided before `better` was there
    settle(client, NAME, ALIAS, mine=worse)
    assert champion(client) == better


def test_who_beat_the_champion_follows_it_whatever_the_scores(client):
    settle(client, NAME, ALIAS, mine=promoted(client, 0.9))
    settle(client, NAME, ALIAS, mine=promoted(client, 0.7, compared_with="1", protocol="harder"))
    assert champion(client) == 2


def test_another_test_is_no_race(client):
    settle(client, NAME, ALIAS, mine=promoted(client, 0.8))
    settle(client, NAME, ALIAS, mine=promoted(client, 0.9, protocol="easier"))
    assert champion(client) == 1


def test_a_champion_that_was_taken_back_stays_so(client):
    settle(client, NAME, ALIAS, mine=promoted(client, 0.8))
    settle(client, NAME, ALIAS, mine=promoted(client, 0.9, compared_with="1"))
    client.set_registered_model_alias(NAME, ALIAS, "1")  # by a person
    settle(client, NAME, ALIAS)
    assert champion(client) == 1


def test_a_rival_of_a_champion_that_was_taken_back_does_not_follow_in_its_place(client):
    settle(client, NAME, ALIAS, mine=promoted(client, 0.8))
    rivals = [promoted(client, score, compared_with="1") for score in (0.95, 0.9)]
    for rival in rivals:
        settle(client, NAME, ALIAS, mine=rival)
    assert champion(client) == 2
    client.set_registered_model_alias(NAME, ALIAS, "1")  # by a person
    settle(client, NAME, ALIAS)
    assert champion(client) == 1


def test_an_alias_that_was_taken_away_stays_so(client):
    for score in (0.9, 0.8):
        settle(client, NAME, ALIAS, mine=promoted(client, score))
    client.delete_registered_model_alias(NAME, ALIAS)  # by a person
    assert settle(client, NAME, ALIAS) is None


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_around_giving_the_alias_is_repaired_by_the_next_run(client, monkeypatch, after):
    settle(client, NAME, ALIAS, mine=promoted(client, 0.8))
    give = client.set_registered_model_alias

    def crash(*arguments):
        if after:
            give(*arguments)
        raise KeyboardInterrupt

    better = promoted(client, 0.9, compared_with="1")
    monkeypatch.setattr(client, "set_registered_model_alias", crash)
    with pytest.raises(KeyboardInterrupt):
        settle(client, NAME, ALIAS, mine=better)
    monkeypatch.undo()
    settle(client, NAME, ALIAS)
    assert champion(client) == 2
    client.set_registered_model_alias(NAME, ALIAS, "1")  # by a person
    settle(client, NAME, ALIAS)
    assert champion(client) == 1


def test_a_repair_that_comes_late_does_not_take_the_alias_from_a_better_run(client, monkeypatch):
    settle(client, NAME, ALIAS, mine=promoted(client, 0.7))
    promoted(client, 0.8, compared_with="1")  # it broke off
    give, others = client.set_registered_model_alias, MlflowClient(client.tracking_uri)

    def late(*arguments):
        monkeypatch.undo()
        settle(others, NAME, ALIAS, mine=promoted(others, 0.9, compared_with="1"))
        give(*arguments)

    monkeypatch.setattr(client, "set_registered_model_alias", late)
    settle(client, NAME, ALIAS)
    assert champion(client) == 3


def test_two_versions_of_one_package_do_not_take_the_alias_from_each_other(client):
    twins = [promoted(client, 0.8) for _ in range(2)]
    for twin in (*twins, *twins):
        settle(client, NAME, ALIAS, mine=twin)
        assert champion(client) == 1


def test_a_run_that_broke_off_is_completed(client):
    promoted(client, 0.8)
    settle(client, NAME, ALIAS)
    assert champion(client) == 1
