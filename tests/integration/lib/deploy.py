# SPDX-License-Identifier: Apache-2.0
"""deploy/daemonset as the tests see it: strict YAML, overlays built by the real kustomize, example pods."""
import functools
import os
import re
import shutil
import subprocess

import pytest
import yaml

SOURCE = os.environ.get("MC_SRC") or os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
DAEMONSET = os.path.join(SOURCE, "deploy/daemonset")
CACHE = os.path.expanduser("~/.cache/modelcached-tests")
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"


class StrictLoader(yaml.SafeLoader):  # pylint: disable=too-many-ancestors
    """A key that is given twice is a mistake, not the last one's."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{sorted(twice)} twice", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text):
    return [found for found in yaml.load_all(text, StrictLoader) if found is not None]


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return file.read()


def folders(*path):
    """The names of the folders in deploy/daemonset/PATH."""
    parent = os.path.join(DAEMONSET, *path)
    return sorted(name for name in os.listdir(parent) if os.path.isdir(os.path.join(parent, name)))


def go_build(name, folder, *command, env=None):
    """The program NAME in our cache, which Go makes; skips where there is no Go or it cannot."""
    path = os.path.join(CACHE, name)
    if not shutil.which("go"):
        pytest.skip(f"{name} is not there, and no go to make it")
    done = subprocess.run(["nice", "go", *command], cwd=folder, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"go could not make {name}: {done.stderr.strip()[-300:]}")
    return path


@functools.cache
def kustomize():
    """The command that builds an overlay: kustomize, or kubectl, which has it inside."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    path = os.path.join(CACHE, "kustomize")
    if not os.access(path, os.X_OK):
        path = go_build("kustomize", "/", "install", KUSTOMIZE, env={"GOBIN": CACHE})
    return [path, "build"]


@functools.cache
def kubestrict():
    """tests/helpers/kubestrict; go finds out by itself whether there is anything to compile."""
    os.makedirs(CACHE, exist_ok=True)
    return go_build("kubestrict", os.path.join(SOURCE, "tests/helpers/kubestrict"), "build", "-o",
                    os.path.join(CACHE, "kubestrict"), ".")


def build(folder):
    """What kustomize makes of a folder, as text."""
    done = subprocess.run([*kustomize(), folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), f"kustomize warns: {done.stderr}"
    return done.stdout


class Built:
    """The objects of an overlay, or of what is built on one."""

    def __init__(self, text):
        self.text = text
        self.objects = documents(text)

    def one(self, kind):
        found = [obj for obj in self.objects if obj["kind"] == kind]
        assert len(found) == 1, f"{len(found)} objects of kind {kind}"
        return found[0]

    @property
    def pod(self):
        return self.one("DaemonSet")["spec"]["template"]["spec"]

    @property
    def container(self):
        found = self.pod["containers"]
        assert len(found) == 1 and not self.pod.get("initContainers")
        return found[0]

    @property
    def config_text(self):
        return self.one("ConfigMap")["data"]["config.yaml"]

    @property
    def config(self):
        found = documents(self.config_text)
        assert len(found) == 1
        return found[0]

    def host_paths(self):
        """{volume name: path on the node}."""
        return {v["name"]: v["hostPath"]["path"] for v in self.pod["volumes"] if "hostPath" in v}

    def mounts(self):
        """{volume name: volumeMount}."""
        found = {m["name"]: m for m in self.container["volumeMounts"]}
        assert len(found) == len(self.container["volumeMounts"]), "a volume is mounted twice"
        return found


@functools.cache
def overlay(name):
    return Built(build(os.path.join(DAEMONSET, "overlays", name)))


@functools.cache
def base():
    """The base as it is written, for which no kustomize is needed: its resources, and its file as a ConfigMap."""
    [kustomization] = documents(read(DAEMONSET, "base/kustomization.yaml"))
    [generator] = kustomization["configMapGenerator"]
    data = {name: read(DAEMONSET, "base", name) for name in generator["files"]}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
    return Built("\n---\n".join([*(read(DAEMONSET, "base", name) for name in kustomization["resources"]),
                                yaml.safe_dump(config_map)]))


def known_attributes():
    """The volume attributes that csi/params.c has, without those of the kubelet."""
    found = re.findall(r'^ +\[ATTRIBUTE_\w+\] = "(\w+)",$', read("csi/params.c"), re.M)
    assert "reference" in found
    return set(found)


def csi_sources(objects):
    """(object's name, CSI volume source) of every pod, pod template and persistent volume."""
    for obj in objects:
        spec = obj.get("spec", {})
        if obj["kind"] == "PersistentVolume":
            yield obj["metadata"]["name"], spec["csi"]
        for volume in spec.get("template", {}).get("spec", spec).get("volumes", []):
            if "csi" in volume:
                yield obj["metadata"]["name"], volume["csi"]


def examples():
    """{file name: objects} of deploy/daemonset/examples."""
    folder = os.path.join(DAEMONSET, "examples")
    return {name: documents(read(folder, name)) for name in sorted(os.listdir(folder))}


def markdown_blocks(path, language="yaml"):
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(path), re.M | re.S)


def source_sentences():
    """All string literals of our C sources, adjacent ones joined, as one text."""
    found = []
    for folder in ("base", "proto", "cache", "oci", "csi", "agent", "ctl"):
        for name in sorted(os.listdir(os.path.join(SOURCE, folder))):
            if name.endswith((".c", ".h")):
                text = re.sub(r'(?<!\\)"\s*\n\s*"', "", read(folder, name))
                found += re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
    return "\n".join(found).replace('\\"', '"')
