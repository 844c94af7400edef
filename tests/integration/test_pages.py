# SPDX-License-Identifier: Apache-2.0
"""The pages for operators: their YAML is right, their links lead somewhere, what they quote is what programs say."""
import os
import re

import pytest
import yaml

from lib.deploy import (DAEMONSET, SOURCE, Built, build, csi_sources, documents, examples, known_attributes,
                        markdown_blocks, read, source_sentences)

PAGES = ["README.md", "docs/deploy.md", "docs/metrics.md", "docs/troubleshooting.md", "docs/volumes.md"]


def walk(value):
    """Every mapping within a YAML value."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(item)


@pytest.mark.parametrize("page", PAGES)
def test_yaml_on_the_page(page):
    for block in markdown_blocks(page):
        for value in walk(documents(block)):
            if isinstance(value.get("volumeAttributes"), dict):
                assert set(value["volumeAttributes"]) <= known_attributes(), block


def test_the_kustomization_on_the_page_builds(work):
    """Its parts together, as the reader puts them together."""
    whole, config = {}, read(DAEMONSET, "base/config.yaml") + "log: { level: debug }\n"
    for block in markdown_blocks("docs/deploy.md"):
        block = block.replace("../modelcached", os.path.relpath(SOURCE, os.path.realpath(work)))
        block = re.sub(r"^# (components:|  - )", r"\1", block, flags=re.M)  # they are optional there
        for part in documents(block):
            if set(part) <= {"resources", "components", "images", "configMapGenerator", "patches"}:
                assert not set(part) & set(whole)
                whole |= part
    assert len(whole) == 5
    for name, text in (("kustomization.yaml", yaml.safe_dump(whole)), ("config.yaml", config)):
        with open(os.path.join(work, name), "w", encoding="utf-8") as file:
            file.write(text)
    built = Built(build(work))
    assert built.container["image"].startswith("registry.example/modelcached:")
    assert built.config_text == config
    [volume] = [v for v in built.pod["volumes"] if v.get("configMap", {}).get("name", "").startswith("modelcached")]
    assert volume["configMap"]["name"] == built.one("ConfigMap")["metadata"]["name"]
    assert {"https_proxy", "no_proxy"} <= {variable["name"] for variable in built.container["env"]}
    assert set(built.mounts()) == {v["name"] for v in built.pod["volumes"]} >= {"ca", "credentials"}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", read(page))
    assert links
    for link in links:
        assert os.path.exists(os.path.join(SOURCE, os.path.dirname(page), link)), link


def test_every_attribute_and_example_is_on_the_page_of_volumes():
    page = read("docs/volumes.md")
    for key in known_attributes():
        assert f"`{key}`" in page
    for name in examples():
        assert f"examples/{name}" in page


def test_sentences_of_troubleshooting_are_those_of_the_programs():
    """The page quotes them in the first columns of its tables; "…" stands for what differs."""
    known = source_sentences()
    quoted = re.findall(r"^\| `([^`]+)` \|", read("docs/troubleshooting.md"), re.M)
    assert len(quoted) > 25
    for sentence in quoted:
        for piece in sentence.split("…"):
            assert piece.strip() in known, f"no program says {piece!r} (of {sentence!r})"


def test_examples_on_the_page_are_those_of_the_files():
    parts, n = read("docs/volumes.md").split("```"), 0
    for before, block in zip(parts[::2], parts[1::2]):
        names = re.findall(r"\[([\w-]+\.yaml)\]", before)
        if names:
            objects, shown = examples()[names[-1]], documents(block.removeprefix("yaml\n"))
            assert shown == objects or shown[0]["csi"] in [source for _, source in csi_sources(objects)], names[-1]
            n += 1
    assert n >= len(known_attributes())
