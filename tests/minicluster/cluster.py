"""The cluster: an API server, a kubelet and the controllers, in threads of this process."""

import base64
import json
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from minicluster.api import serve
from minicluster.controllers import fire, run_jobs
from minicluster.objects import Object, Objects, now
from minicluster.podman import Podman, missing
from minicluster.scheduler import place

NAMESPACE = "zenml"
NODES: tuple[Object, ...] = (
    {"name": "cpu-0", "labels": {"lungsynth/pool": "cpu"}, "allocatable": {"cpu": "16", "memory": "64Gi"}},
    {
        "name": "gpu-0",
        "labels": {"lungsynth/pool": "gpu"},
        "allocatable": {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "1"},
        "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    },
)


def podman_is_missing() -> str:
    """What this machine lacks to run the cluster; empty if it lacks nothing."""
    return missing()


class MiniCluster:
    """Starts when entered. `environment` are variables of every pod."""

    def __init__(self, state: Path, environment: dict[str, str], nodes: tuple[Object, ...] = NODES) -> None:
        self.state, self.token = state, uuid.uuid4().hex
        self.objects = Objects()
        for node in nodes:
            room = node["allocatable"] | {"ephemeral-storage": "100Gi"}
            meta = {"name": node["name"], "labels": node.get("labels", {})}
            status = {"allocatable": room, "capacity": room}
            item = {"metadata": meta, "spec": {"taints": node.get("taints", [])}, "status": status}
            self.objects.create("nodes", "", item)
        for name in ("default", NAMESPACE):
            self.objects.create("namespaces", "", {"metadata": {"name": name}})
        self._environment, self._stopping = environment, threading.Event()

    def __enter__(self) -> "MiniCluster":
        self.state.mkdir(parents=True, exist_ok=True)
        self._certify()
        self._server, self.port = serve(self)
        own = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}
        self.podman = Podman(self.state, own | self._environment)
        self.kubeconfig = self._write_kubeconfig()
        self._loop = threading.Thread(target=self._control)
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._loop.join()
        self._server.shutdown()
        self._server.server_close()
        self.podman.close()

    # What tests do to it.

    def pods(self, labels: str = "") -> list[Object]:
        """Pods of the namespace that a selector matches."""
        with self.objects.lock:
            return self.objects.all("pods", NAMESPACE, labels=labels)

    def preempt(self, pod: Object, grace_s: int = 5) -> None:
        """Take the pod's spot node away: SIGTERM, grace, SIGKILL, and the condition that a real cluster sets."""
        self._disrupt(pod, "PreemptionByScheduler", grace_s)

    def lose_node(self, name: str) -> None:
        """A node goes, with all pods on it, at once."""
        with self.objects.lock:
            self.objects.get("nodes", "", name)["spec"]["unschedulable"] = True
        for pod in self.pods():
            if pod["spec"].get("nodeName") == name and pod["status"]["phase"] == "Running":
                self._disrupt(pod, "DeletionByTaintManager", 0)

    def restore_node(self, name: str) -> None:
        """The node is there again."""
        with self.objects.lock:
            del self.objects.get("nodes", "", name)["spec"]["unschedulable"]

    def run_out_of_memory(self, pod: Object) -> None:
        """The kernel kills the pod's container."""
        self.podman.kill(_name(pod), 0)

    def fire(self, cron_job: str) -> str:
        """A cron job's time has come; gives the name of the job. ApiError says why there is none."""
        with self.objects.lock:
            return fire(self.objects, NAMESPACE, cron_job)

    def _disrupt(self, pod: Object, reason: str, grace_s: int) -> None:
        with self.objects.lock:
            condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
            pod["status"].setdefault("conditions", []).append(condition)
        self.podman.kill(_name(pod), grace_s)

    # The kubelet.

    def _control(self) -> None:
        while not self._stopping.wait(0.1):
            with self.objects.lock:
                for pod in self.objects.all("pods"):
                    self._advance(pod)
                self.kill(run_jobs(self.objects))

    def kill(self, pods: list[Object]) -> None:
        """Stop the containers of pods that were deleted or are not wanted any more."""
        for pod in pods:
            self.podman.kill(_name(pod), 5)

    def _advance(self, pod: Object) -> None:
        status, container = pod["status"], pod["spec"]["containers"][0]
        if status["phase"] == "Pending":
            if not pod["spec"].get("nodeName"):
                node, why = place(pod, self.objects)
                if node is None:
                    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
                    status["conditions"] = [condition]
                    return
                pod["spec"]["nodeName"] = node
                status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
            if not self.podman.has(container["image"]):
                message = f'Back-off pulling image "{container["image"]}"'
                waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
                status["containerStatuses"] = [_container(container, waiting)]
                return
            account = {"token": self.token, "namespace": NAMESPACE, "ca.crt": (self.state / "ca.crt").read_text()}
            self.podman.start(pod, self.objects, account)
            status |= {"phase": "Running", "startTime": now()}
            status["containerStatuses"] = [_container(container, {"running": {"startedAt": now()}})]
        elif status["phase"] == "Running" and (code := self.podman.ended(_name(pod))) is not None:
            disrupted = any(one["type"] == "DisruptionTarget" for one in status.get("conditions") or [])
            reason = "Completed" if code == 0 else "OOMKilled" if code == 137 and not disrupted else "Error"
            status["phase"] = "Succeeded" if code == 0 else "Failed"
            ended = {"exitCode": code, "reason": reason, "finishedAt": now()}
            status["containerStatuses"] = [_container(container, {"terminated": ended})]

    # TLS.

    def _certify(self) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=self.state, check=True, capture_output=True)

        names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc\nbasicConstraints=CA:FALSE\n"
        (self.state / "names").write_text(names)
        key = ("-newkey", "rsa:2048", "-nodes")
        authority = ("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=minicluster", "-days", "2")
        openssl("req", "-x509", *key, *authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt")

    def _write_kubeconfig(self) -> Path:
        authority = base64.b64encode((self.state / "ca.crt").read_bytes()).decode()
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": authority}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "mini",
            "clusters": [{"name": "mini", "cluster": cluster}],
            "users": [{"name": "tester", "user": {"token": self.token}}],
            "contexts": [{"name": "mini", "context": {"cluster": "mini", "user": "tester", "namespace": NAMESPACE}}],
        }
        path = self.state / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def wait(self, what: Any, timeout_s: float = 120) -> Any:
        """Wait until `what()` is true, and give it."""
        deadline = time.monotonic() + timeout_s
        while not (found := what()):
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.1)
        return found


def _name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}.{pod['metadata']['name']}"


def _container(container: Object, state: Object) -> Object:
    fields = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0}
    return fields | {"state": state}
