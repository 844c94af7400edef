# SPDX-License-Identifier: Apache-2.0
"""A containerd of the test's own, and containers in it with the mounts, propagation and privileges of a pod."""
import os
import subprocess

from lib.sandbox import PREFIX, Process, need, remove_cgroups, wait_for

CONFIG = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/t.sock"
"""


class Containerd:
    """Beneath `folder`; close() ends its containers too."""

    def __init__(self, folder):
        need("containerd", "ctr", "runc")
        os.makedirs(folder)
        self.folder, self.socket, self.names = folder, os.path.join(folder, "c.sock"), []
        # Its own, because containers of one name share control groups.
        self.namespace = f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        self.runc = ["--runc-root", os.path.join(folder, "runc")]  # nothing is left in /run
        config = os.path.join(folder, "config.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(folder=folder))
        self.process = Process(["containerd", "-c", config], os.path.join(folder, "log"))
        wait_for(lambda: self._ctr("version").returncode == 0, "containerd", 60, 0.2)

    def _ctr(self, *arguments, seconds=120):
        return subprocess.run(["ctr", "-a", self.socket, "-n", self.namespace, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=seconds, check=False)

    def ctr(self, *arguments):
        done = self._ctr(*arguments)
        assert done.returncode == 0, f"ctr {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def run(self, name, root, argv, *options):
        """Starts a container; log() has its output."""
        self.names.append(name)
        self.ctr("run", "--detach", "--log-uri", f"file://{self.folder}/{name}.log", *self.runc, *options, "--rootfs",
                 root, name, *argv)

    def log(self, name):
        with open(os.path.join(self.folder, f"{name}.log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def output(self, name, root, argv, *options):
        """Runs a container to its end: (exit code, what it printed)."""
        done = self._ctr("run", "--rm", *self.runc, *options, "--rootfs", root, name, *argv)
        return done.returncode, done.stdout + done.stderr

    def execute(self, name, *argv):
        """`kubectl exec`: (exit code, what it printed)."""
        done = self._ctr("task", "exec", "--exec-id", f"e{os.urandom(4).hex()}", name, *argv)
        return done.returncode, done.stdout + done.stderr

    def running(self, name):
        return any(line.split()[0] == name and line.split()[2] == "RUNNING"
                   for line in self.ctr("task", "ls").splitlines()[1:])

    def end(self, name, signal="SIGTERM", seconds=30):
        """Ends the container's process and takes the container away, as a runtime does for a pod that is replaced."""
        self.ctr("task", "kill", "--signal", signal, name)
        wait_for(lambda: not self.running(name), f"the end of {name}", seconds, 0.1)
        self.ctr("task", "rm", name)
        self.ctr("container", "rm", name)
        self.names.remove(name)

    def close(self):
        for name in list(self.names):
            self._ctr("task", "kill", "--all", "--signal", "SIGKILL", name)
            self._ctr("task", "rm", "--force", name)
            self._ctr("container", "rm", name)
        self.process.stop()
        remove_cgroups(os.getpid())


# What of a pod's specification has no part in how its container runs.
NOT_THE_CONTAINERS = {"automountServiceAccountToken", "containers", "dnsPolicy", "enableServiceLinks", "nodeSelector",
                      "priorityClassName", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations", "volumes"}


def pod_options(built, host):
    """ctr's options for the one container of a DaemonSet's pod; its paths on the node are beneath the folder `host`.  What
    of the specification is not understood fails: a test would run something else than what is deployed."""
    pod, container, options = built.pod, built.container, []
    security, limits = container["securityContext"], container["resources"]["limits"]
    assert set(pod) - NOT_THE_CONTAINERS == {"hostNetwork"}
    assert set(security) == {"privileged", "readOnlyRootFilesystem", "runAsUser"} and security["runAsUser"] == 0
    assert set(limits) == {"memory"} and limits["memory"].endswith("Gi")
    options += ["--memory-limit", str(int(limits["memory"][:-2]) << 30)]
    if security["privileged"]:
        options.append("--privileged")
    if security["readOnlyRootFilesystem"]:
        options.append("--read-only")
    if pod["hostNetwork"]:
        options.append("--net-host")
    propagations = {mount.get("mountPropagation") for mount in built.mounts().values()}
    if "Bidirectional" in propagations:  # as CRI does: else the binds are made from slaves of the node's mounts
        options += ["--rootfs-propagation", "rshared"]
    for name, mount in built.mounts().items():
        source = built.host_paths().get(name) or f"/volumes/{name}"
        how = {"Bidirectional": "rbind:rshared"}.get(mount.get("mountPropagation"), "rbind:rprivate")
        how += ":ro" if mount.get("readOnly") else ":rw"
        options += ["--mount", f"type=bind,src={host}{source},dst={mount['mountPath']},options={how}"]
    for variable in container["env"]:
        options += ["--env", f"{variable['name']}={variable.get('value', 'test-node')}"]
    return options
