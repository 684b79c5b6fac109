"""A small Kubernetes on loopback: a real API over TLS whose pods run as podman containers, for tests off the laptop.

It has what ZenML, its clients and our manifests ask for: pods and their logs, jobs (also indexed ones), cron jobs,
secrets, service accounts and role bindings. Every object is checked by kubernetes-validate, as an API server would.
What a test does to it (take a node away, fire a cron job) are methods of `MiniCluster`.
"""

from minicluster.cluster import MiniCluster, podman_is_missing

__all__ = ["MiniCluster", "podman_is_missing"]
