# SPDX-License-Identifier: Apache-2.0
"""deploy/daemonset without a cluster: what kustomize makes of each overlay is right for Kubernetes and for modelcached,
its paths agree with its configuration, examples say what the driver knows."""
import os
import re
import subprocess

import grpc
import pytest

from lib.csi import error_of
from lib.daemon import program, run
from lib.deploy import (DAEMONSET, SOURCE, Built, build, csi_sources, documents, examples, folders, known_attributes,
                        kubestrict, overlay, read)

OVERLAYS, COMPONENTS = folders("overlays"), folders("components")
# Where each kubelet has its root.
ROOTS = {"containerd": "/var/lib/kubelet", "crio": "/var/lib/kubelet", "k3s": "/var/lib/kubelet",
         "accelerators": "/var/lib/kubelet", "microk8s": "/var/snap/microk8s/common/var/lib/kubelet"}
# All that is made, and no more: nothing that grants access to the API server.
KINDS = {"Namespace": "v1", "ServiceAccount": "v1", "ConfigMap": "v1", "CSIDriver": "storage.k8s.io/v1",
         "DaemonSet": "apps/v1"}
MORE_KINDS = {"prometheus-operator": {"PodMonitor": "monitoring.coreos.com/v1"}}  # of components; not Kubernetes' own
CSIDRIVER = {"attachRequired": False, "podInfoOnMount": True, "fsGroupPolicy": "None", "requiresRepublish": False,
             "seLinuxMount": False, "storageCapacity": False, "volumeLifecycleModes": ["Ephemeral", "Persistent"]}
POD = {"priorityClassName": "system-node-critical", "automountServiceAccountToken": False,
       "serviceAccountName": "modelcached", "tolerations": [{"operator": "Exists"}],
       "hostPID": None, "hostIPC": None, "shareProcessNamespace": None}
EXAMPLE_KINDS = {"Pod": "v1", "Secret": "v1", "PersistentVolume": "v1", "PersistentVolumeClaim": "v1", "Service": "v1",
                 "Deployment": "apps/v1"}


def yaml_files():
    found = []
    for folder, _, names in os.walk(DAEMONSET):
        found += [os.path.relpath(os.path.join(folder, name), SOURCE) for name in names if name.endswith(".yaml")]
    return sorted(found)


@pytest.fixture(name="built", params=OVERLAYS)
def built_fixture(request):
    return overlay(request.param)


@pytest.mark.parametrize("path", yaml_files())
def test_every_file_is_yaml_and_names_its_licence(path):
    text = read(path)
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert documents(text)


def test_every_overlay_has_its_kubelet_root_here():
    assert set(OVERLAYS) == set(ROOTS)


def test_objects(built):
    assert {obj["kind"]: obj["apiVersion"] for obj in built.objects} == KINDS
    for obj in built.objects:
        if obj["kind"] not in ("Namespace", "CSIDriver"):
            assert obj["metadata"]["namespace"] == built.one("Namespace")["metadata"]["name"]


def test_namespace_allows_the_privileged_pod(built):
    assert built.one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_csidriver(built):
    assert built.one("CSIDriver")["spec"] == CSIDRIVER


def test_no_access_to_the_api_server(built):
    assert built.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert not [v for v in built.pod["volumes"] if "projected" in v]


def test_pod(built):
    assert {key: built.pod.get(key) for key in POD} == POD
    labels = built.one("DaemonSet")["spec"]["template"]["metadata"]["labels"]
    selector = built.one("DaemonSet")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()


def test_update_is_rolling_and_never_two_at_a_time_on_a_node(built):
    strategy = built.one("DaemonSet")["spec"]["updateStrategy"]
    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"]["maxSurge"] == 0 and strategy["rollingUpdate"]["maxUnavailable"]


def test_the_pod_may_end_as_slowly_as_the_daemon_does(built):
    stop = re.search(r"#define STOP_USEC +\((\d+) \* USEC_PER_SEC\)", read("agent/agent.c"))
    assert built.pod["terminationGracePeriodSeconds"] > int(stop[1])


def test_container(built):
    container = built.container
    assert container["securityContext"] == {"privileged": True, "readOnlyRootFilesystem": True, "runAsUser": 0}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert set(container["resources"]["limits"]) == {"memory"}  # no throttling
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container["env"]
    for probe, more in (("startupProbe", []), ("readinessProbe", ["--ready"]), ("livenessProbe", [])):
        assert container[probe]["exec"]["command"] == ["/usr/bin/cache-ctl", "health", *more]
    assert "ports" not in container and built.config["metrics"]["address"].startswith("127.0.0.1:")


def test_probes_do_what_their_commands_say(make_daemon, built, work):
    """Before the kubelet has registered the driver: alive, and not ready."""
    folder = os.path.join(work, "registry")
    os.mkdir(folder)
    daemon = make_daemon(config={"csi": {"registration_dir": folder}})
    codes = {probe: daemon.ctl(*built.container[probe]["exec"]["command"][1:]).code
             for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert codes == {"startupProbe": 0, "readinessProbe": 1, "livenessProbe": 0}


def test_image_has_the_version_of_the_project(built):
    version = re.search(r"^project\(modelcached VERSION (\S+)", read("CMakeLists.txt"), re.M)[1]
    assert built.container["image"] == f"modelcached:{version}"
    assert f"modelcached:{version}" in read("deploy/daemonset/Containerfile")


def config_folders(config):
    """{key: folder that the daemon must have on the node} of the paths in a configuration."""
    csi = config["csi"]
    return {"store.path": config["store"]["path"],
            "csi.endpoint": os.path.dirname(csi["endpoint"].removeprefix("unix://")),
            "csi.kubelet_dir": csi["kubelet_dir"], "csi.registration_dir": csi["registration_dir"],
            "control.socket": os.path.dirname(config["control"]["socket"])}


def test_host_paths_are_those_of_the_configuration(built):
    wanted = config_folders(built.config)
    assert sorted(built.host_paths().values()) == sorted(wanted.values())
    for name, path in built.host_paths().items():
        assert built.mounts()[name]["mountPath"] == path, f"{name}: another path in the container than on the node"


def test_only_pods_folders_propagate(built):
    propagated = {m["mountPath"]: m["mountPropagation"] for m in built.mounts().values() if "mountPropagation" in m}
    assert propagated == {built.config["csi"]["kubelet_dir"]: "Bidirectional"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubelet_root(name):
    config, root = overlay(name).config, ROOTS[name]
    assert config_folders(config) == {
        "store.path": "/var/lib/modelcached", "csi.endpoint": f"{root}/plugins/{config['csi']['driver']}",
        "csi.kubelet_dir": f"{root}/pods", "csi.registration_dir": f"{root}/plugins_registry",
        "control.socket": "/run/modelcached"}


def test_missing_kubelet_folders_are_not_made(built):
    types = {v["hostPath"]["path"]: v["hostPath"]["type"] for v in built.pod["volumes"] if "hostPath" in v}
    folder = config_folders(built.config)
    for key in ("csi.kubelet_dir", "csi.registration_dir"):
        assert types.pop(folder[key]) == "Directory"
    assert set(types.values()) == {"DirectoryOrCreate"}


def test_configuration_is_mounted_where_the_argument_says(built):
    arguments = built.container["args"]
    path = arguments[arguments.index("--config") + 1]
    [volume] = [v for v in built.pod["volumes"] if "configMap" in v]
    assert volume["configMap"]["name"] == built.one("ConfigMap")["metadata"]["name"]
    assert os.path.dirname(path) == built.mounts()[volume["name"]]["mountPath"]
    assert os.path.basename(path) in built.one("ConfigMap")["data"]


def test_configuration_is_right_for_the_daemon(built, work):
    if not program("modelcached"):
        pytest.skip("modelcached is not built")
    path = os.path.join(work, "config.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(built.config_text)
    result = run([program("modelcached"), "--config", path, "--check-config"], 20)
    assert result.code == 0, result


def test_one_name_of_the_driver(built):
    name = built.one("CSIDriver")["metadata"]["name"]
    assert built.config["csi"]["driver"] == name
    for objects in examples().values():
        assert {source["driver"] for _, source in csi_sources(objects)} == {name}


def decode_strictly(text):
    """"KIND NAME" of every document, as k8s.io/api understands them."""
    done = subprocess.run([kubestrict()], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_kubernetes_knows_every_field_of_the_overlays(built):
    assert len(decode_strictly(built.text)) == len(built.objects)


@pytest.mark.parametrize("name", sorted(examples()))
def test_kubernetes_knows_every_field_of_the_examples(name):
    assert len(decode_strictly(read(DAEMONSET, "examples", name))) == len(examples()[name])


@pytest.mark.parametrize("mistake", ["hostPathh: {}", "enableServiceLinks: 3", "volumes: {}"])
def test_the_strict_decoder_refuses(mistake):
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [], {mistake}}}\n"
    done = subprocess.run([kubestrict()], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("kubestrict: "), done


@pytest.fixture(name="compose")
def compose_fixture(work):
    """compose(COMPONENT, OVERLAY): what an operator's own kustomization of both makes."""
    def compose(component, name="containerd"):
        parts = {"resources": f"overlays/{name}", "components": f"components/{component}"}
        with open(os.path.join(work, "kustomization.yaml"), "w", encoding="utf-8") as file:
            for key, path in parts.items():
                file.write(f"{key}:\n  - {os.path.relpath(os.path.join(DAEMONSET, path), os.path.realpath(work))}\n")
        return Built(build(work))

    return compose


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_components_go_with_every_overlay(compose, component, name):
    built, more = compose(component, name), MORE_KINDS.get(component, {})
    assert {obj["kind"]: obj["apiVersion"] for obj in built.objects} == {**KINDS, **more}
    own = [text for text in built.text.split("\n---\n") if not any(f"kind: {kind}\n" in text for kind in more)]
    assert len(decode_strictly("\n---\n".join(own))) == len(KINDS)
    assert set(built.mounts()) == {v["name"] for v in built.pod["volumes"]}


def test_node_credentials_are_a_file_that_the_daemon_reads(compose):
    built = compose("node-credentials")
    key, path = built.container["args"][-1].split("=")
    assert built.container["args"][-2:-1] == ["--set"] and key == "credentials.docker_config"
    [volume] = [v for v in built.pod["volumes"] if "secret" in v]
    mount = built.mounts()[volume["name"]]
    assert mount["readOnly"] and path == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert volume["secret"]["defaultMode"] == 0o400


@pytest.mark.parametrize("component", ["prometheus", "prometheus-operator"])
def test_prometheus_finds_the_metrics(compose, component):
    built = compose(component)
    template = built.one("DaemonSet")["spec"]["template"]
    [port] = built.container["ports"]
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true" and annotations["prometheus.io/path"] == "/metrics"
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert built.pod["hostNetwork"] and port["hostPort"] == port["containerPort"]  # Kubernetes wants them equal
    assert built.container["args"][-2:] == ["--set", f"metrics.address=:{port['containerPort']}"]


def test_the_prometheus_operator_selects_the_daemons(compose):
    built = compose("prometheus-operator")
    template, monitor = built.one("DaemonSet")["spec"]["template"], built.one("PodMonitor")
    labels = template["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["metadata"]["namespace"] == built.one("DaemonSet")["metadata"]["namespace"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    [port] = built.container["ports"]
    assert endpoint["port"] == port["name"]
    assert endpoint["path"] == template["metadata"]["annotations"]["prometheus.io/path"]


def test_accelerators_are_chosen_by_labels(compose):
    affinity = compose("accelerators").pod["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert all(len(term["matchExpressions"]) == 1 for term in terms)  # any of them, not all
    assert "affinity" not in overlay("containerd").pod and "affinity" in overlay("accelerators").pod


# Examples.

@pytest.mark.parametrize("name", sorted(examples()))
def test_example(name):
    objects = examples()[name]
    sources = list(csi_sources(objects))
    assert sources
    for obj in objects:
        assert EXAMPLE_KINDS[obj["kind"]] == obj["apiVersion"]
    for where, source in sources:
        assert source["readOnly"] is True, where
        assert set(source["volumeAttributes"]) <= known_attributes(), where
        assert all(isinstance(value, str) for value in source["volumeAttributes"].values()), where


def test_every_attribute_has_an_example():
    used = {key for objects in examples().values() for _, source in csi_sources(objects)
            for key in source["volumeAttributes"]}
    assert used == known_attributes()


def test_driver_takes_what_the_examples_say(make_daemon):
    """With the pull policy Never, what is understood ends as "not stored here", and what is not as a bad argument."""
    daemon, n = make_daemon(config={"access": {"check": "never"}}), 0  # else the registries would be asked
    for objects in examples().values():
        secrets = {obj["metadata"]["name"]: obj["stringData"] for obj in objects if obj["kind"] == "Secret"}
        for name, source in csi_sources(objects):
            attributes, n = {**source["volumeAttributes"], "pullPolicy": "Never"}, n + 1
            secret = secrets[source["nodePublishSecretRef"]["name"]] if "nodePublishSecretRef" in source else None
            code, text = error_of(daemon.csi().publish, f"v{n}", daemon.target(f"v{n}"),
                                  attributes.pop("reference", None), secrets=secret, **attributes)
            assert code == grpc.StatusCode.NOT_FOUND and "not stored here" in text, (name, code, text)


def test_persistent_volume_and_claim_fit():
    volume, claim, pod = examples()["persistent.yaml"]
    assert volume["spec"]["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert volume["spec"]["capacity"]["storage"] == claim["spec"]["resources"]["requests"]["storage"]
    assert volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"] == ""
    assert pod["metadata"]["namespace"] == claim["metadata"]["namespace"]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@pytest.mark.parametrize("name", sorted(examples()))
def test_mounted_volumes_are_there(name):
    for obj in examples()[name]:
        spec = obj.get("spec", {})
        spec = spec.get("template", {}).get("spec", spec)
        mounted = {m["name"] for c in spec.get("containers", []) for m in c.get("volumeMounts", [])}
        assert mounted == {v["name"] for v in spec.get("volumes", [])}
