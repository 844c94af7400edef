# SPDX-License-Identifier: Apache-2.0
"""The real csi-sanity, and a driver with the Controller that it wants beside a node plugin."""
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import grpc
import yaml

from lib.csi import messages
from lib.deploy import CACHE, go_build

VERSION = "v5.5.0"
MODULE = f"github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@{VERSION}"
CAPABILITIES = "/csi.v1.Identity/GetPluginCapabilities"


def csi_sanity():
    """The program, which Go makes once (half a minute) and our cache keeps; skips where there is no Go or it cannot."""
    folder = os.path.join(CACHE, f"csi-sanity@{VERSION}")
    path = os.path.join(folder, "csi-sanity")
    if not os.access(path, os.X_OK):
        go_build("csi-sanity", "/", "install", MODULE, env={"GOBIN": folder})
    return path


class WholeDriver(grpc.GenericRpcHandler):
    """The daemon, whose socket is `node`, with a Controller, which gives volumes whose volume_context is what CreateVolume
    had as parameters.

    All but the Controller's calls it hands on, byte for byte, and to the capabilities of the plugin it adds
    CONTROLLER_SERVICE, without which csi-sanity leaves specs of the Node out."""

    def __init__(self, socket_path, node):
        self.pb, self.csi = messages("controller", "tests/integration/lib"), messages("csi")
        self.node = grpc.insecure_channel(f"unix:{node}")
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self.server.add_insecure_port(f"unix:{socket_path}")
        self.server.start()

    def service(self, handler_call_details):
        method = handler_call_details.method
        own = {"/csi.v1.Controller/ControllerGetCapabilities": self.get_capabilities,
               "/csi.v1.Controller/CreateVolume": self.create_volume,
               "/csi.v1.Controller/DeleteVolume": self.delete_volume}.get(method)
        return grpc.unary_unary_rpc_method_handler(own or self.hand_on(method))

    def get_capabilities(self, _request, _context):
        return self.pb.ControllerGetCapabilitiesResponse().SerializeToString()

    def create_volume(self, request, _context):
        asked, answer = self.pb.CreateVolumeRequest.FromString(request), self.pb.CreateVolumeResponse()
        answer.volume.volume_id = asked.name
        answer.volume.volume_context.update(asked.parameters)
        return answer.SerializeToString()

    def delete_volume(self, _request, _context):
        return self.pb.DeleteVolumeResponse().SerializeToString()

    def hand_on(self, method):
        def call(request, context):
            try:
                answer = self.node.unary_unary(method)(request)  # csi-sanity's calls have no deadlines
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            if method == CAPABILITIES:
                more = self.csi.GetPluginCapabilitiesResponse.FromString(answer)
                more.capabilities.add().service.type = self.csi.PluginCapability.Service.CONTROLLER_SERVICE
                answer = more.SerializeToString()
            return answer

        return call

    def close(self):
        self.server.stop(None).wait()
        self.node.close()


def run_sanity(folder, pods, socket_path, skip, parameters):
    """Runs all specs but those that `skip` (a regular expression) matches, with targets beneath the folder `pods`;
    {spec: what went wrong, or None} of those that ran.  parameters: the attributes of volumes."""
    paths = {name: os.path.join(folder, name) for name in ("parameters.yaml", "report.xml", "staging")}
    with open(paths["parameters.yaml"], "w", encoding="ascii") as file:
        yaml.safe_dump(parameters, file)
    done = subprocess.run(
        [csi_sanity(), f"-csi.endpoint=unix://{socket_path}", f"-csi.mountdir={pods}/sanity",
         f"-csi.stagingdir={paths['staging']}", f"-csi.testvolumeparameters={paths['parameters.yaml']}",
         f"-ginkgo.skip={skip}", "-ginkgo.no-color", f"-ginkgo.junit-report={paths['report.xml']}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    assert os.path.exists(paths["report.xml"]), done.stdout + done.stderr
    ran = {}
    for case in ElementTree.parse(paths["report.xml"]).getroot().iter("testcase"):
        if case.get("status") not in ("skipped", "pending"):
            failure = case.find("failure")
            ran[case.get("name").removeprefix("[It] ")] = None if failure is None else failure.get("message")
    return ran
