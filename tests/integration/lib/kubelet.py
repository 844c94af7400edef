# SPDX-License-Identifier: Apache-2.0
"""A kubelet as a plugin sees it: its plugin watcher, and the calls of its volume manager in their order, each on a
connection of its own.  After kubernetes' pkg/kubelet/pluginmanager and pkg/volume/csi."""
import ctypes
import hashlib
import json
import os
import re
import select
import stat
import struct
import threading
import time

import grpc

from lib.csi import CsiClient, GrpcClient

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
# "May go on": the kubelet keeps the directory.  After any other error it takes it away (isFinalError()).
NOT_FINAL = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE,
             grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}
DIAL_SECONDS, INFO_SECONDS, NOTIFY_SECONDS, CSI_SECONDS = 10, 1, 5, 120
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_NONBLOCK = 0x40, 0x80, 0x100, 0x200, 0o4000
_libc = ctypes.CDLL(None, use_errno=True)


def connection(path):
    """Options of a connection of its own, with the authority that kubelets up to 1.25 send: the socket's path."""
    return [*OWN_CONNECTION, ("grpc.default_authority", path)]


class FolderWatch:
    """inotify of one folder; events(): [(name, is there)] since the last time."""

    def __init__(self, path):
        self.fd = _libc.inotify_init1(IN_NONBLOCK)
        if self.fd < 0 or _libc.inotify_add_watch(self.fd, os.fsencode(path),
                                                  IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify", path)

    def events(self, seconds):
        found = []
        if select.select([self.fd], [], [], seconds)[0]:
            data = os.read(self.fd, 65536)
            while data:
                _, mask, _, n = struct.unpack_from("iIII", data)
                name = os.fsdecode(data[16:16 + n].rstrip(b"\0"))
                found.append((name, bool(mask & (IN_CREATE | IN_MOVED_TO))))
                data = data[16 + n:]
        return found

    def close(self):
        os.close(self.fd)


class Refused(Exception):
    """Of a plugin that the kubelet does not take."""


class Kubelet:
    """`root`: its folder, as it names it; `host`: what is before that on this machine, when it is a node's.  poll: seconds
    between two GetInfo of a plugin that is registered (10 in a real one, never in those before 1.34), backoff: seconds
    before the first retry (0.5).

    .drivers: {driver: endpoint} that are registered; .happened: what became of them, in order: ("registered" or
    "unregistered", driver), ("failed", why)."""

    def __init__(self, root, host="", poll=0.5, backoff=0.1):
        self.root, self.host, self.poll, self.backoff = root, host, poll, backoff
        self.registry = host + os.path.join(root, "plugins_registry")
        self.drivers, self.nodes, self.happened, self.refuse = {}, {}, [], None
        self.sockets, self.registered, self.due = {}, {}, {}
        self.stopping, self.thread, self.watch = threading.Event(), None, None

    def start(self):
        """As when it starts: makes its folders, and looks for plugins that are there already."""
        for name in ("plugins", "plugins_registry", "pods"):
            os.makedirs(self.host + os.path.join(self.root, name), exist_ok=True)
        self.watch = FolderWatch(self.registry)
        for name in os.listdir(self.registry):
            self._appeared(name)
        self.stopping.clear()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def stop(self):
        """As when it is stopped: nothing is unregistered or unmounted, and it remembers nothing."""
        if self.thread:
            self.stopping.set()
            self.thread.join()
            self.watch.close()
            self.thread = None
        self.drivers, self.sockets, self.registered, self.due = {}, {}, {}, {}

    def restart(self):
        self.stop()
        return self.start()

    def _run(self):
        while not self.stopping.is_set():
            for name, there in self.watch.events(0.02):
                if there:
                    self._appeared(name)
                else:
                    self._went(name)
            for path in list(self.sockets):
                if time.monotonic() >= self.due[path]:
                    self._care_for(path)

    def _appeared(self, name):
        path = os.path.join(self.registry, name)
        try:
            if not name.startswith(".") and stat.S_ISSOCK(os.lstat(path).st_mode):
                self._forget(path)  # a new one of an old name is another plugin
                self.sockets[path], self.due[path] = 0, 0.0
        except FileNotFoundError:
            pass

    def _went(self, name):
        path = os.path.join(self.registry, name)
        self.sockets.pop(path, None)
        self._forget(path)

    def _forget(self, path):
        name = self.registered.pop(path, None)
        if name and self.drivers.pop(name, None):
            self.happened.append(("unregistered", name))

    def _care_for(self, path):
        """Registers, or, once it is, asks whether it still answers; `sockets` counts the failures."""
        try:
            with GrpcClient("registration", path, connection(path)) as plugin:
                if path in self.registered:
                    plugin.GetInfo(plugin.pb.InfoRequest(), timeout=DIAL_SECONDS)
                else:
                    self._register(path, plugin)
            self.sockets[path], self.due[path] = 0, time.monotonic() + self.poll
        except (grpc.RpcError, grpc.FutureTimeoutError, Refused) as error:
            self.sockets[path] += 1
            self.happened.append(("failed", str(error)))
            if self.sockets[path] >= 2:
                self._forget(path)
            self.due[path] = time.monotonic() + min(self.backoff * 2 ** self.sockets[path], 2)

    def _register(self, path, plugin):
        grpc.channel_ready_future(plugin.channel).result(timeout=DIAL_SECONDS)
        info = plugin.GetInfo(plugin.pb.InfoRequest(), timeout=INFO_SECONDS)
        try:
            self._validate(info)
            with CsiClient(self.host + info.endpoint, connection(info.endpoint)) as csi:
                self.nodes[info.name] = csi.NodeGetInfo(csi.pb.NodeGetInfoRequest(), timeout=CSI_SECONDS).node_id
            if not self.nodes[info.name]:
                raise Refused("the node_id is empty")
        except (grpc.RpcError, Refused) as error:
            plugin.NotifyRegistrationStatus(plugin.pb.RegistrationStatus(
                plugin_registered=False, error=f"RegisterPlugin error -- {error}"), timeout=NOTIFY_SECONDS)
            raise
        self.drivers[info.name], self.registered[path] = info.endpoint, info.name
        plugin.NotifyRegistrationStatus(plugin.pb.RegistrationStatus(plugin_registered=True), timeout=NOTIFY_SECONDS)
        self.happened.append(("registered", info.name))

    def _validate(self, info):
        if self.refuse:
            raise Refused(self.refuse)
        if info.type != "CSIPlugin":
            raise Refused(f"no handler registered for plugin type: {info.type}")
        if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,61}[A-Za-z0-9])?", info.name):
            raise Refused(f"{info.name!r} is not a name of a driver")
        if not any(re.fullmatch(r"v?1\.\d+\.\d+", version) for version in info.supported_versions):
            raise Refused(f"none of {list(info.supported_versions)} is CSI 1")

    def csi(self, driver):
        """A client on a connection of its own; a driver that is not registered is an error, as for a pod."""
        return CsiClient(self.host + self.drivers[driver], connection(self.drivers[driver]))


class Pod:
    """A pod with one inline volume."""

    def __init__(self, kubelet, driver, name, attributes, secrets=None):  # pylint: disable=too-many-arguments
        self.kubelet, self.driver, self.name, self.secrets = kubelet, driver, name, secrets or {}
        self.uid = hashlib.md5(name.encode()).hexdigest()
        self.volume_id = "csi-" + hashlib.sha256(f"{self.uid}model".encode()).hexdigest()
        self.target = f"{kubelet.root}/pods/{self.uid}/volumes/kubernetes.io~csi/model/mount"
        self.path = kubelet.host + self.target  # on this machine
        self.context = {**attributes, "csi.storage.k8s.io/pod.name": name, "csi.storage.k8s.io/pod.namespace": "default",
                        "csi.storage.k8s.io/pod.uid": self.uid, "csi.storage.k8s.io/serviceAccount.name": "default",
                        "csi.storage.k8s.io/ephemeral": "true"}
        self.answers = []  # (code or None, sentence, seconds) of each NodePublishVolume

    def request(self, csi):
        return csi.publish_request(self.volume_id, self.target, secrets=self.secrets, **self.context)

    def set_up_at(self, seconds=CSI_SECONDS):
        """SetUpAt() of the kubelet's csi_mounter.go, once; `seconds` is its csiTimeout."""
        folder = os.path.dirname(self.path)
        os.makedirs(folder, 0o750, exist_ok=True)
        with open(os.path.join(folder, "vol_data.json"), "w", encoding="ascii") as file:
            json.dump({"driverName": self.driver, "volumeHandle": self.volume_id,
                       "volumeLifecycleMode": "Ephemeral"}, file)
        with self.kubelet.csi(self.driver) as csi:
            for _ in range(2):  # VOLUME_MOUNT_GROUP? SINGLE_NODE_MULTI_WRITER?
                csi.NodeGetCapabilities(csi.pb.NodeGetCapabilitiesRequest(), timeout=seconds)
        begin = time.monotonic()
        try:
            with self.kubelet.csi(self.driver) as csi:
                csi.NodePublishVolume(self.request(csi), timeout=seconds)
            self.answers.append((None, "", time.monotonic() - begin))
        except grpc.RpcError as error:
            self.answers.append((error.code(), error.details(), time.monotonic() - begin))
            if error.code() not in NOT_FINAL:
                self._remove_mount_dir()
            raise

    def mount(self, rpc_seconds=CSI_SECONDS, seconds=60, longest=122):
        """Tries until it works, as the operation executor does: the pause doubles, up to `longest` seconds."""
        backoff = 0.5
        end = time.monotonic() + seconds
        while True:
            try:
                return self.set_up_at(rpc_seconds)
            except (grpc.RpcError, KeyError):  # KeyError: "driver name … not found in the list of registered CSI drivers"
                if time.monotonic() + backoff > end:
                    raise
            time.sleep(backoff)
            backoff = min(backoff * 2, longest)

    def stats(self):
        """GetMetrics() of csi_metrics.go: asks what is supported, then how much there is."""
        with self.kubelet.csi(self.driver) as csi:
            capabilities = csi.NodeGetCapabilities(csi.pb.NodeGetCapabilitiesRequest(), timeout=5).capabilities
            assert csi.pb.NodeServiceCapability.RPC.GET_VOLUME_STATS in [c.rpc.type for c in capabilities]
        with self.kubelet.csi(self.driver) as csi:
            return csi.NodeGetVolumeStats(csi.pb.NodeGetVolumeStatsRequest(
                volume_id=self.volume_id, volume_path=self.target), timeout=CSI_SECONDS)

    def tear_down_at(self, seconds=CSI_SECONDS):
        """TearDownAt() of csi_mounter.go; the kubelet calls it, too, for what it is not sure was ever published."""
        with self.kubelet.csi(self.driver) as csi:
            csi.unpublish(self.volume_id, self.target, seconds)
        self._remove_mount_dir()

    def _remove_mount_dir(self):
        if os.path.ismount(self.path):
            return
        folder = os.path.dirname(self.path)
        for remove, path in ((os.rmdir, self.path), (os.unlink, os.path.join(folder, "vol_data.json")),
                             (os.rmdir, folder)):
            try:
                remove(path)
            except FileNotFoundError:
                pass

    def is_gone(self):
        """Nothing is left of the volume."""
        return not os.path.lexists(os.path.dirname(self.path)) and not os.path.ismount(self.path)
