# SPDX-License-Identifier: Apache-2.0
"""Independent gRPC clients (grpcio) of the daemon's sockets, made from the .proto files by protoc."""
import atexit
import functools
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # children are exec'ed at once
import grpc  # pylint: disable=wrong-import-position
from google.protobuf import descriptor_pb2

SOURCE = os.environ.get("MC_SRC") or os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))


@functools.cache
def messages(name, where="proto"):
    """The message classes of <where>/<name>.proto."""
    folder = tempfile.mkdtemp(prefix="mc-it-proto-")
    atexit.register(shutil.rmtree, folder, True)
    subprocess.run(["protoc", "-I", os.path.join(SOURCE, where), f"--python_out={folder}", f"{name}.proto"],
                   check=True)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(f"{name}_pb2")
    finally:
        sys.path.remove(folder)


class GrpcClient:
    """client.<Method>(request, timeout=…) for each method of the services of proto/<name>.proto."""

    def __init__(self, name, socket_path, options=()):
        self.pb = messages(name)
        self.channel = grpc.insecure_channel(f"unix:{socket_path}", options)
        file = descriptor_pb2.FileDescriptorProto.FromString(self.pb.DESCRIPTOR.serialized_pb)
        for service in file.service:
            for method in service.method:
                setattr(self, method.name, self._call(file.package, service.name, method))

    def _call(self, package, service, method):
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        request, reply = (getattr(self.pb, t.rsplit(".", 1)[1]) for t in
                          (method.input_type, method.output_type))
        return make(f"/{package}.{service}/{method.name}", request.SerializeToString, reply.FromString)

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def control_client(socket_path):
    """Of the control socket: client.Status(client.pb.StatusRequest()) and so on."""
    return GrpcClient("control", socket_path)


class CsiClient(GrpcClient):
    """Of the CSI socket, with publish() and unpublish() as the kubelet calls them."""

    def __init__(self, socket_path, options=()):
        super().__init__("csi", socket_path, options)

    def publish_request(self, volume_id, target, reference, secrets=None, readonly=True, **attributes):
        """A NodePublishVolumeRequest of an inline volume; attributes are more volumeAttributes."""
        pb = self.pb
        request = pb.NodePublishVolumeRequest(volume_id=volume_id, target_path=target, readonly=readonly)
        request.volume_capability.mount.SetInParent()
        request.volume_capability.access_mode.mode = 1  # SINGLE_NODE_WRITER, as the kubelet sends
        request.volume_context["csi.storage.k8s.io/ephemeral"] = "true"
        if reference is not None:
            request.volume_context["reference"] = reference
        for key, value in attributes.items():
            request.volume_context[key] = value
        for key, value in (secrets or {}).items():
            request.secrets[key] = value
        return request

    def publish(self, volume_id, target, reference, seconds=120.0, rpc_seconds=None, **options):
        """Publishes; with rpc_seconds each call has that deadline and is tried again, as the kubelet does,
        until `seconds` are over.  Raises grpc.RpcError otherwise."""
        request = self.publish_request(volume_id, target, reference, **options)
        end = time.monotonic() + seconds
        while True:
            try:
                return self.NodePublishVolume(request, timeout=rpc_seconds or seconds)
            except grpc.RpcError as error:
                again = error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED,
                                         grpc.StatusCode.UNAVAILABLE)
                if rpc_seconds is None or not again or time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def unpublish(self, volume_id, target, seconds=30.0):
        request = self.pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target)
        return self.NodeUnpublishVolume(request, timeout=seconds)


def error_of(call, *arguments, **options):
    """(grpc.StatusCode, details) of a call that has to fail."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call succeeded")
