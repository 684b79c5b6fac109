"""Runs pods as podman containers, with this machine's own Python mounted read-only: no image has to be built."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from minicluster.objects import Object, Objects

IMAGE = "127.0.0.1:5001/lungsynth:test"
"""Nothing but mount points; ZenML counts 127.0.0.1 as a registry that pods can reach, and localhost not."""
HOST = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ssl", "/etc/ld.so.cache", "/etc/alternatives")
LIBRARY = Path(__file__).parents[2] / "lungsynth"
"""As if the image had it installed: the environment's installation is of this checkout."""
CONF = """
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
"""


def missing() -> str:
    """What this machine lacks to run containers; empty if it lacks nothing."""
    lacking = [name for name in ("podman", "runc", "openssl") if not shutil.which(name)]
    if lacking:
        return f"{', '.join(lacking)} not installed (Debian: apt-get install podman runc openssl)"
    if os.geteuid() != 0:
        return "containers run as root alone here"
    with tempfile.TemporaryDirectory() as state:
        try:
            podman = Podman(Path(state), {})
        except RuntimeError as error:
            return str(error)
        why = podman.probe()
        podman.close()
    return why


class Podman:
    """Containers of one cluster, in a storage of their own below `state`."""

    def __init__(self, state: Path, environment: dict[str, str]) -> None:
        self.state = state
        self._environment = environment  # of every pod
        self._stopping: list[subprocess.Popen[bytes]] = []
        self._running: dict[str, tuple[subprocess.Popen[bytes], Any]] = {}
        (state / "containers.conf").write_text(CONF)
        self._storage = Path(tempfile.mkdtemp(prefix="mini-"))  # podman wants a short path
        places = (f"--root={self._storage / 'root'}", f"--runroot={self._storage / 'run'}")
        self._podman = ["podman", *places, "--storage-driver=vfs"]
        self._env = os.environ | {"CONTAINERS_CONF": str(state / "containers.conf")}
        self._import_image()

    def probe(self) -> str:
        """Why no container runs here; empty if one does."""
        volumes = [f"--volume={path}:{path}:ro" for path in HOST if Path(path).exists()]
        command = [*self._podman, "run", "--rm", "--network=host", *volumes, IMAGE, "/usr/bin/true"]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True)
        return "" if done.returncode == 0 else f"podman runs none: {done.stderr.strip().splitlines()[-1:]}"

    def has(self, image: str) -> bool:
        """Whether the image can be had: there is no registry."""
        return self._call("image", "exists", image) == 0

    def start(self, pod: Object, objects: Objects, account: dict[str, str]) -> None:
        """Start the first container of a pod; `account` are the files of its service account."""
        meta, container = pod["metadata"], pod["spec"]["containers"][0]
        home = self.state / "pods" / f"{meta['namespace']}.{meta['name']}"
        (home / "account").mkdir(parents=True)
        for name, text in account.items():
            (home / "account" / name).write_text(text)
        environment = self._environment | _environment(pod, objects)
        (home / "env").write_text("".join(f"{key}={text}\n" for key, text in environment.items() if "\n" not in text))
        command = [*self._podman, "run", "--rm", "--name", home.name, "--hostname", meta["name"], "--network=host"]
        command += [f"--env-file={home / 'env'}", *self._volumes(pod, objects, home)]
        if container.get("workingDir"):
            command += ["--workdir", container["workingDir"]]
        if container.get("command"):
            command += ["--entrypoint", json.dumps(container["command"])]
        log = (home / "log").open("wb")
        process = subprocess.Popen(
            [*command, container["image"], *(container.get("args") or [])], stdout=log, stderr=log, env=self._env
        )
        self._running[home.name] = process, log

    def ended(self, name: str) -> int | None:
        """Exit code of a container that has ended."""
        process, log = self._running[name]
        code = process.poll()
        if code is not None:
            log.close()
            del self._running[name]
        return code

    def kill(self, name: str, grace_s: int) -> None:
        """SIGTERM, and SIGKILL after `grace_s`; at once if that is 0. Does not wait."""
        if name in self._running:
            stop = subprocess.Popen(
                [*self._podman, "stop", "--ignore", f"--time={grace_s}", name],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._env,
            )
            self._stopping = [one for one in [*self._stopping, stop] if one.poll() is None]

    def log(self, name: str) -> bytes:
        """What a container has printed."""
        path = self.state / "pods" / name / "log"
        return path.read_bytes() if path.exists() else b""

    def close(self) -> None:
        """Kill all containers and remove their storage."""
        self._call("rm", "--all", "--force", "--time=0")
        for process in self._stopping:
            process.wait()
        for process, log in self._running.values():
            process.wait()
            log.close()
        self._call("rmi", "--all", "--force")
        shutil.rmtree(self._storage, ignore_errors=True)

    def _import_image(self) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for folder in ("app", "tmp", "root", "etc", "proc", "sys", "dev"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                archive.addfile(entry)
        path = f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin"
        changes = [f"--change=ENV PATH={path}", "--change=ENV PYTHONDONTWRITEBYTECODE=1", "--change=WORKDIR /app"]
        done = subprocess.run(
            [*self._podman, "import", *changes, "-", IMAGE], input=buffer.getvalue(), env=self._env, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"podman import: {done.stderr.decode()}")

    def _volumes(self, pod: Object, objects: Objects, home: Path) -> list[str]:
        host = [*HOST, sys.base_prefix, sys.prefix, str(LIBRARY)]
        mounts = {path: (path, "ro") for path in dict.fromkeys(host) if Path(path).exists()}
        mounts["/var/run/secrets/kubernetes.io/serviceaccount"] = (str(home / "account"), "ro")
        volumes = {one["name"]: one for one in pod["spec"].get("volumes") or []}
        for mount in pod["spec"]["containers"][0].get("volumeMounts") or []:
            source = self._source(volumes[mount["name"]], pod, objects, home)
            mounts[mount["mountPath"]] = (str(source), "ro" if mount.get("readOnly") else "rw")
        return [f"--volume={source}:{path}:{mode}" for path, (source, mode) in mounts.items()]

    def _source(self, volume: Object, pod: Object, objects: Objects, home: Path) -> Path:
        folder = home / "volumes" / volume["name"]
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        if "persistentVolumeClaim" in volume:
            folder = self.state / "claims" / volume["persistentVolumeClaim"]["claimName"]
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            found = objects.get("configmaps", pod["metadata"]["namespace"], volume["configMap"]["name"])
            for key, text in found["data"].items():
                (folder / key).write_text(text)
        if "secret" in volume:
            for key, text in secret(objects, pod["metadata"]["namespace"], volume["secret"]["secretName"]).items():
                (folder / key).write_text(text)
        return folder

    def _call(self, *arguments: str) -> int:
        return subprocess.run([*self._podman, *arguments], env=self._env, capture_output=True).returncode


def secret(objects: Objects, namespace: str, name: str) -> dict[str, str]:
    """What a secret holds."""
    found = objects.get("secrets", namespace, name)
    decoded = {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}
    return decoded | (found.get("stringData") or {})


def _environment(pod: Object, objects: Objects) -> dict[str, str]:
    namespace, container = pod["metadata"]["namespace"], pod["spec"]["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        if reference := source.get("secretRef"):
            names = [one["metadata"]["name"] for one in objects.all("secrets", namespace)]
            if reference["name"] in names or not reference.get("optional"):
                found |= secret(objects, namespace, reference["name"])
        if reference := source.get("configMapRef"):
            found |= objects.get("configmaps", namespace, reference["name"])["data"]
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        value = secret(objects, namespace, reference["name"])[reference["key"]] if reference else variable.get("value")
        found[variable["name"]] = value or ""
    limits = (container.get("resources") or {}).get("limits") or {}
    if gpus := int(limits.get("nvidia.com/gpu", 0)):
        found["NVIDIA_VISIBLE_DEVICES"] = ",".join(map(str, range(gpus)))  # as the device plugin does
    return found
