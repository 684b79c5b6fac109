"""Decides which version is champion. The result does not depend on the order in which runs end, or on crashes."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

Versions = dict[int, ModelVersion]
"""Promoted versions by number."""

ROUNDS = 20
"""Most attempts; an attempt is repeated when another run changed the alias meanwhile."""


def settle(client: MlflowClient, name: str, alias: str, *, mine: int | None = None) -> ModelVersion | None:
    """Point the alias to the best version, and return the version that holds it afterwards.

    MLflow has no compare-and-set. But the tags of a version never change: which version it had to beat
    (`compared_with`), its score, its data and its protocol. So every run that reads them computes the same champion,
    and repeats until nothing changes.

    Args:
        mine: the version that this run registered; None for a repair after a crash. A repair leaves the alias at a
            champion that already had a successor, since somebody has given the alias back to it.
    """
    for look in range(ROUNDS):
        found = client.search_model_versions(f"name = '{name}'")
        versions = {int(version.version): version for version in found if version.tags.get("gate_result") == "promote"}
        holder = holder_of(client, name, alias)
        held = int(holder.version) if holder else None  # MLflow gives a number or a text, depending on the store
        best = _best(versions, held, mine)
        try:
            if held in versions and "was_champion" not in versions[held].tags:  # its run was interrupted
                client.set_model_version_tag(name, str(held), "was_champion", "true")
            if best is None or best == held:
                return holder
            mine = mine or best  # a repair completes the interrupted run
            client.set_registered_model_alias(name, alias, str(best))  # the next look adds the tag
        except MlflowException:
            if look == ROUNDS - 1:
                raise
            # Another run wrote the same row at this moment: look again.
    return holder_of(client, name, alias)


def holder_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that has the alias."""
    for model in client.search_registered_models(f"name = '{name}'"):
        if alias in model.aliases:
            return client.get_model_version_by_alias(model.name, alias)
    return None


def _best(versions: Versions, held: int | None, mine: int | None) -> int | None:
    """The best of the versions that beat the holder; else the best of this run and the runs that raced with it."""
    followers = [n for n, version in versions.items() if version.tags.get("compared_with") == str(held or "none")]
    crowned = [number for number in followers if "was_champion" in versions[number].tags]
    if mine is None and crowned:
        return held
    successors = [number for number in followers if number == mine or number not in crowned]
    if mine in versions and held in versions and _same(versions, mine, held, "weights_sha256"):
        # The same weights as the holder, tested anew. After the same test, two versions would take turns at the alias.
        successors += [mine] if not _raced(versions, mine, held) else []
    if not successors and mine in versions and held in versions and _raced(versions, mine, held):
        successors = [number for number in versions if _raced(versions, number, held)]
    return max(successors, key=lambda number: (_score(versions[number]), number == held, -number), default=held)


def _raced(versions: Versions, one: int, other: int) -> bool:
    """Whether both had the same champion to beat, by the same test."""
    return _same(versions, one, other, "compared_with", "data_sha256", "protocol_sha256")


def _same(versions: Versions, one: int, other: int, *tags: str) -> bool:
    return all(versions[one].tags.get(tag) == versions[other].tags.get(tag) for tag in tags)


def _score(version: ModelVersion) -> float:
    return float(version.tags.get("score", "-inf"))
