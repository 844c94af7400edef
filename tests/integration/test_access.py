# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Tenants of one node: what a pod with credentials brought is given to another only when the registry lets that one in.

The registry is docker-registry with htpasswd: "alice" and "bob" may pull, everybody else hears 401."""
import base64
import contextlib
import hashlib
import json
import os
import time

import grpc
import pytest

from lib.artifacts import index, modelpack
from lib.check import (EXIT_OF, assert_pulls, everything_of, files_with, need_programs, publish, publish_error,
                       running_daemon, wait_idle)
from lib.csi import control_client, error_of
from lib.registry import Registry
from lib.sandbox import mounts_beneath
from lib.volumes import unmount
from lib.watch import Watch

Code = grpc.StatusCode
ALICE = {"username": "alice", "password": "Open-Sesame-1"}
BOB = {"username": "bob", "password": "Open-Sesame-2"}
MALLORY = {"username": "alice", "password": "guessed"}
USERS = {"alice": ALICE["password"], "bob": BOB["password"]}


class Tenants:
    """A registry, a daemon, and an artifact that alice's pod brought and still shows."""

    def __init__(self, folder, registry, daemon):
        self.registry, self.daemon, self.n = registry, daemon, 0
        self.artifact = modelpack(folder, sizes=(100_000,), seed="tenants")
        self.by_tag = registry.push(self.artifact, "team/private", "v1")
        self.by_digest = f"{registry.host}/team/private@{self.artifact.digest}"
        self.elsewhere = registry.push(self.artifact, "team/copy", "v1")
        self.by_digest_elsewhere = f"{registry.host}/team/copy@{self.artifact.digest}"
        self.absent = registry.push(modelpack(folder, sizes=(1000,), seed="absent"), "team/absent", "v1")
        self.target = publish(daemon, "alice", self.by_tag, secrets=ALICE)

    def name(self):
        self.n += 1
        return f"pod{self.n}"

    def requests(self):
        """How many requests the registry answered so far."""
        time.sleep(0.2)  # its log comes after the answer
        return len(self.registry.requests())

    def gives(self, reference=None, **options):
        assert_pulls(self.daemon, self.name(), reference or self.by_tag, self.artifact.tree, **options)

    def refuses(self, code, reference=None, **options):
        name = self.name()
        got, text = publish_error(self.daemon, name, reference or self.by_tag, **options)
        assert got == code, text
        assert not os.path.exists(self.daemon.target(name))
        assert self.artifact.digest not in text or "@" in (reference or ""), text
        return text


def make_tenants(folder, config=None, **users):
    """A generator of Tenants, for fixtures; the registry and the daemon end with it."""
    need_programs()
    if not Registry.available():
        pytest.skip("docker-registry is not installed")
    registry = Registry(os.path.join(folder, "registry"), users={**USERS, **users})
    try:
        with running_daemon(os.path.join(folder, "d"), [registry.config()], config=config) as daemon:
            yield Tenants(folder, registry, daemon)
    finally:
        registry.stop()


@pytest.fixture(name="tenants", scope="module")
def tenants_fixture(module_work):
    """For tests that change nothing."""
    yield from make_tenants(module_work)


@pytest.fixture(name="own")
def own_fixture(work):
    """own(config): Tenants of the test's own."""
    made = []

    def make(**config):
        made.append(make_tenants(work, config))
        return next(made[-1])

    yield make
    for one in made:
        next(one, None)


REFERENCES = ["by_tag", "by_digest", "elsewhere", "by_digest_elsewhere"]
POLICIES = ["IfNotPresent", "Always", "Never"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reference", REFERENCES)
def test_a_pod_without_credentials_gets_nothing(tenants, reference, policy):
    text = tenants.refuses(Code.UNAUTHENTICATED, getattr(tenants, reference), pullPolicy=policy)
    assert "no credentials were given: name a secret for this registry in the volume's nodePublishSecretRef" in text


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reference", REFERENCES)
def test_a_pod_with_a_wrong_password_gets_nothing(tenants, reference, policy):
    for _ in range(2):  # nothing is remembered of it
        text = tenants.refuses(Code.UNAUTHENTICATED, getattr(tenants, reference), pullPolicy=policy, secrets=MALLORY)
        assert "these are those of the volume's secret" in text


@pytest.mark.parametrize("policy", POLICIES)
def test_the_refusal_does_not_tell_what_is_here(tenants, policy):
    """A name that is stored, and one that the registry has and this node has not."""
    for secrets in (None, MALLORY):
        stored = tenants.refuses(Code.UNAUTHENTICATED, tenants.by_tag, pullPolicy=policy, secrets=secrets)
        absent = tenants.refuses(Code.UNAUTHENTICATED, tenants.absent, pullPolicy=policy, secrets=secrets)
        assert stored == absent.replace("team/absent", "team/private")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_part_of_an_artifact_is_as_private_as_the_whole(tenants, policy):
    """What could be made of what is stored, without asking the registry."""
    for reference in (tenants.by_tag, tenants.by_digest):
        tenants.refuses(Code.UNAUTHENTICATED, reference, pullPolicy=policy, include="*.json")
        tenants.refuses(Code.UNAUTHENTICATED, reference, pullPolicy=policy, include="*.json", secrets=MALLORY)
    blobs, name = tenants.registry.blob_gets(), tenants.name()
    target = publish(tenants.daemon, name, tenants.by_tag, pullPolicy=policy, include="*.json", secrets=BOB)
    assert sorted(os.listdir(target)) == ["config.json", "tokenizer.json"]
    assert tenants.registry.blob_gets() == blobs
    tenants.daemon.csi().unpublish(name, target)


def test_a_pod_with_good_credentials_is_checked_once_and_fetches_nothing(tenants):
    blobs = tenants.registry.blob_gets()
    tenants.gives(secrets=BOB, pullPolicy="Never")
    asked = tenants.requests()
    for policy, reference in (("Never", tenants.by_tag), ("IfNotPresent", tenants.by_tag),
                              ("Always", tenants.by_digest)):
        tenants.gives(reference, secrets=BOB, pullPolicy=policy)
    assert tenants.requests() == asked, "a remembered grant needs no registry"
    assert tenants.registry.blob_gets() == blobs


def test_a_good_credential_for_another_repository_fetches_of_its_own(tenants):
    """The digest is known, and is stored; but nobody has pulled it from there yet."""
    assert "is not stored here" in tenants.refuses(Code.NOT_FOUND, tenants.by_digest_elsewhere, pullPolicy="Never",
                                                   secrets=BOB)
    blobs = tenants.registry.blob_gets()
    tenants.gives(tenants.elsewhere, secrets=BOB)
    assert tenants.registry.blob_gets() > blobs
    tenants.refuses(Code.UNAUTHENTICATED, tenants.elsewhere)


def test_cache_ctl_is_the_administrator(tenants, work):
    os.mkdir(os.path.join(work, "m"))
    directory = os.path.join(work, "m")
    assert tenants.daemon.ctl("pull", tenants.by_tag).code == 0
    assert tenants.daemon.ctl("mount", tenants.by_tag, directory).code == 0
    assert tenants.daemon.ctl("umount", directory).code == 0
    result = tenants.daemon.ctl("pull", "--policy", "Always", tenants.by_tag)
    assert result.code == EXIT_OF[Code.UNAUTHENTICATED] and "nodePublishSecretRef" not in result.stderr, result


def test_grants_survive_a_restart_and_mounted_volumes_too(own):
    tenants = own()
    tenants.daemon.restart()
    tenants.registry.stop()
    tenants.gives(secrets=ALICE)
    tenants.daemon.kill9()
    tenants.daemon.start()
    tenants.gives(secrets=ALICE)
    assert mounts_beneath(tenants.target)


def test_what_is_removed_is_asked_for_again(own):
    tenants = own()
    tenants.daemon.csi().unpublish("alice", tenants.target)
    assert tenants.daemon.ctl("rm", tenants.by_tag).code == 0
    asked = tenants.requests()
    tenants.gives(secrets=ALICE)
    assert tenants.requests() > asked


def test_fail_closed_while_the_registry_is_down(own):
    tenants = own()
    tenants.registry.stop()
    for policy in POLICIES:
        tenants.refuses(Code.UNAVAILABLE, secrets=BOB, pullPolicy=policy)
    tenants.gives(secrets=ALICE)
    tenants.registry.start()
    tenants.gives(secrets=BOB)


@pytest.mark.parametrize("part", [{}, {"include": "*.json"}], ids=["whole", "subset"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_volume_whose_time_is_over_is_let_in_all_the_same(own, policy, part):
    """The time was over while the registry was down; nothing is fetched then, but what is here is given, or a part of it."""
    tenants, options = own(), {"secrets": BOB, "pullPolicy": policy, "timeout": "1s", **part}
    tenants.registry.stop()
    target = tenants.daemon.target("late")
    code, text = error_of(tenants.daemon.csi().publish, "late", target, tenants.by_tag, **options)
    assert code == Code.DEADLINE_EXCEEDED and "gave up after 1 s" in text, text
    tenants.registry.start()
    code, text = publish_error(tenants.daemon, "late", tenants.by_tag, **{**options, "secrets": MALLORY})
    assert code == Code.UNAUTHENTICATED, text
    blobs = tenants.registry.blob_gets()
    assert publish(tenants.daemon, "late", tenants.by_tag, **options) == target
    assert all(name.endswith(".json") for _, _, names in os.walk(target) for name in names) == bool(part)
    assert tenants.registry.blob_gets() == blobs
    tenants.daemon.csi().unpublish("late", target)


def test_fail_open_while_the_registry_is_down_where_that_is_set(own):
    tenants = own(access={"unreachable": "allow"}, pull={"give_up": "1m"})
    tenants.refuses(Code.UNAUTHENTICATED)
    tenants.registry.stop()
    for policy in ("IfNotPresent", "Never"):
        tenants.gives(secrets=BOB, pullPolicy=policy)
    tenants.gives(tenants.by_digest, pullPolicy="Always")
    assert "given unchecked, as access.unreachable says" in tenants.daemon.log()
    tenants.registry.start()
    tenants.refuses(Code.UNAUTHENTICATED)


def test_fail_open_has_nothing_to_give_of_what_is_absent(own):
    tenants = own(access={"unreachable": "allow"})
    tenants.registry.stop()
    tenants.refuses(Code.UNAVAILABLE, tenants.absent, secrets=BOB)


def revoke(tenants):
    """Alice has another password from now on."""
    tenants.registry.stop()
    tenants.registry.users = {**USERS, "alice": "Another-One-3"}
    tenants.registry.start()


def test_always_notices_a_revoked_password(own):
    tenants = own(access={"check": "always"})
    asked = tenants.requests()
    tenants.gives(secrets=ALICE, pullPolicy="IfNotPresent")
    assert tenants.requests() > asked
    revoke(tenants)
    for reference in (tenants.by_tag, tenants.by_digest):
        tenants.refuses(Code.UNAUTHENTICATED, reference, secrets=ALICE)
    assert mounts_beneath(tenants.target), "a volume that is mounted stays"
    tenants.gives(secrets={**ALICE, "password": "Another-One-3"})


def test_a_grant_ends_when_the_registry_refuses(own):
    tenants = own()
    revoke(tenants)
    tenants.gives(secrets=ALICE)  # it is remembered …
    tenants.refuses(Code.UNAUTHENTICATED, secrets=ALICE, pullPolicy="Always")
    tenants.refuses(Code.UNAUTHENTICATED, secrets=ALICE)  # … until then


def test_a_volume_that_lost_its_mount_comes_back_without_the_registry(own):
    """As after a reboot of the node, whose pods stay: that volume at that target, and no other one."""
    tenants = own(access={"check": "always"})
    tenants.daemon.stop_clean()
    unmount(tenants.target)
    tenants.registry.stop()
    tenants.daemon.start()
    assert not mounts_beneath(tenants.target)
    for name in ("alice-2", "bob"):
        assert publish_error(tenants.daemon, name, tenants.by_tag, secrets=ALICE)[0] == Code.UNAVAILABLE
    other = os.path.join(os.path.dirname(tenants.target), "other")
    assert error_of(tenants.daemon.csi().publish, "alice", other, tenants.by_tag,
                    secrets=ALICE)[0] == Code.FAILED_PRECONDITION
    assert publish(tenants.daemon, "alice", tenants.by_tag, secrets=ALICE) == tenants.target
    assert mounts_beneath(tenants.target)


def test_never_for_a_listed_registry(own):
    tenants = own(access={"check": "always"})
    registries = [{**tenants.registry.config(), "access_check": "never"}]
    tenants.daemon.config["registries"] = registries
    tenants.daemon.restart()
    asked = tenants.requests()
    tenants.gives()
    tenants.gives(tenants.by_digest, secrets=MALLORY, pullPolicy="Never")
    assert tenants.requests() == asked
    tenants.refuses(Code.UNAUTHENTICATED, tenants.absent)  # what is not here has to be pulled


def test_the_nodes_credentials_count_for_pods_without(own, work):
    tenants = own()
    path = os.path.join(work, "docker.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"auths": {tenants.registry.host: BOB}}, file)
    tenants.daemon.config["credentials"] = {"docker_config": path}
    tenants.daemon.restart()
    tenants.gives()
    assert "these are those of the volume's secret" in tenants.refuses(Code.UNAUTHENTICATED, secrets=MALLORY)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"auths": {tenants.registry.host: MALLORY}}, file)
    tenants.daemon.restart()
    assert "these are the node's" in tenants.refuses(Code.UNAUTHENTICATED)


def test_what_came_without_credentials_is_everybodys(make_daemon, registry, work):
    artifact = modelpack(work, sizes=(1000,), seed="open")
    daemon, reference = make_daemon([registry.config()]), registry.push(artifact, "open/model", "v1")
    assert_pulls(daemon, "first", reference, artifact.tree)
    registry.stop()
    try:
        for i, secrets in enumerate((None, ALICE, MALLORY)):
            assert_pulls(daemon, f"pod{i}", reference, artifact.tree, secrets=secrets, pullPolicy="Never")
    finally:
        registry.start()


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_who_is_known_but_not_allowed(make_daemon, make_faulty, work, auth):
    """403 instead of 401; and no token for nobody."""
    faulty, artifact = make_faulty(users=USERS, auth=auth), modelpack(work, sizes=(1000,), seed="403")
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/closed", "v1")
    by_digest = f"{faulty.host}/team/closed@{artifact.digest}"
    assert_pulls(daemon, "alice", reference, artifact.tree, secrets=ALICE)
    for name in (reference, by_digest):
        assert publish_error(daemon, "nobody", name)[0] == Code.UNAUTHENTICATED
    faulty.fault("/manifests/", "status", status=403)
    for i, name in enumerate((reference, by_digest)):
        code, text = publish_error(daemon, f"bob{i}", name, secrets=BOB)
        assert code == Code.PERMISSION_DENIED and "of the volume's secret" in text, text
        assert_pulls(daemon, f"alice{i}", name, artifact.tree, secrets=ALICE)
    faulty.clear_faults()
    assert_pulls(daemon, "bob", by_digest, artifact.tree, secrets=BOB, pullPolicy="Never")


UNKNOWN = b'{"errors": [{"code": "NAME_UNKNOWN", "message": "unknown"}]}'


def hide(faulty, repository, body=UNKNOWN):
    """From now on the registry says of the repository that it has no such thing; returns what ends that."""
    fault = faulty.fault(f"/{repository}/manifests/", "status", status=404, body=body)
    return lambda: faulty.faults.remove(fault)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_grant_ends_when_the_registry_hides_the_repository(make_daemon, make_faulty, work, auth):
    """404 instead of 403, as many registries say of what the credentials may not see."""
    faulty, artifact = make_faulty(users=USERS, auth=auth), modelpack(work, sizes=(1000,), seed="hidden")
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/hidden", "v1")
    other = faulty.add(modelpack(work, sizes=(1000,), seed="seen"), "team/seen", "v1")
    by_digest = f"{faulty.host}/team/hidden@{artifact.digest}"
    for name, one in (("alice", reference), ("alice-other", other)):
        publish(daemon, name, one, secrets=ALICE)
    publish(daemon, "bob", reference, secrets=BOB, pullPolicy="Never")
    show = hide(faulty, "team/hidden")
    assert_pulls(daemon, "remembered", reference, artifact.tree, secrets=ALICE)
    assert publish_error(daemon, "asked", reference, secrets=ALICE, pullPolicy="Always")[0] == Code.NOT_FOUND
    for policy in POLICIES:
        for name in (reference, by_digest):
            code, text = publish_error(daemon, "forgotten", name, secrets=ALICE, pullPolicy=policy)
            assert code == Code.NOT_FOUND and "(NAME_UNKNOWN: unknown); check the repository and tag" in text, text
    publish(daemon, "elsewhere", other, secrets=ALICE, pullPolicy="Never")
    assert_pulls(daemon, "bob-again", reference, artifact.tree, secrets=BOB, pullPolicy="Never")
    assert mounts_beneath(daemon.target("alice")), "a volume that is mounted stays"
    show()
    blobs = faulty.blob_gets()
    assert_pulls(daemon, "again", by_digest, artifact.tree, secrets=ALICE, pullPolicy="Never")
    assert faulty.blob_gets() == blobs


def test_a_404_of_something_else_ends_no_grant(make_daemon, make_faulty, work):
    """An ingress whose backend is gone, and a slip in a tag."""
    faulty, artifact = make_faulty(users=USERS, auth="basic"), modelpack(work, sizes=(1000,), seed="ingress")
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/ingress", "v1")
    assert_pulls(daemon, "first", reference, artifact.tree, secrets=ALICE)
    show = hide(faulty, "team/ingress", b"404 page not found\n")
    assert publish_error(daemon, "asked", reference, secrets=ALICE, pullPolicy="Always")[0] == Code.NOT_FOUND
    show()
    assert publish_error(daemon, "slip", reference + "0", secrets=ALICE)[0] == Code.NOT_FOUND
    asked = len(faulty.seen("/manifests/"))
    assert_pulls(daemon, "remembered", reference, artifact.tree, secrets=ALICE)
    assert len(faulty.seen("/manifests/")) == asked


def test_a_wrong_password_for_a_token_says_nothing_of_the_repository(make_daemon, make_faulty, work):
    """403 of a token server: what nobody may have stays, what these credentials were given ends."""
    faulty, artifact = make_faulty(users=USERS, auth="bearer"), modelpack(work, sizes=(1000,), seed="bearer")
    faulty.anonymous = True
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/bearer", "v1")
    assert_pulls(daemon, "first", reference, artifact.tree)
    fault = faulty.fault("/token", "status", status=403)
    assert publish_error(daemon, "asked", reference, secrets=BOB, pullPolicy="Always")[0] == Code.UNAUTHENTICATED
    faulty.faults.remove(fault)
    asked = len(faulty.seen("/manifests/"))
    assert_pulls(daemon, "remembered", reference, artifact.tree)
    assert len(faulty.seen("/manifests/")) == asked


def test_a_deleted_tag_is_no_end_of_what_its_repository_has(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(users=USERS, auth="basic"), modelpack(work, sizes=(1000,), seed="tags")
    daemon = make_daemon([faulty.config()])
    first, by_digest = faulty.add(artifact, "team/tags", "v1"), f"{faulty.host}/team/tags@{artifact.digest}"
    assert_pulls(daemon, "first", first, artifact.tree, secrets=ALICE)
    del faulty.manifests["team/tags", "v1"]
    assert publish_error(daemon, "deleted", first, secrets=ALICE, pullPolicy="Always")[0] == Code.NOT_FOUND
    blobs, asked = faulty.blob_gets(), len(faulty.seen("/manifests/"))
    assert_pulls(daemon, "by-digest", by_digest, artifact.tree, secrets=ALICE)
    assert len(faulty.seen("/manifests/")) > asked and faulty.blob_gets() == blobs
    assert_pulls(daemon, "let-in-again", first, artifact.tree, secrets=ALICE)


def test_a_platform_that_is_missing_ends_no_grant(make_daemon, make_faulty, work):
    """The registry gave the index: it lets these credentials in."""
    faulty, artifact = make_faulty(users=USERS, auth="basic"), index([(modelpack(work, sizes=(1000,)), "linux/amd64")])
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/index", "v1")
    options = {"secrets": ALICE, "pullPolicy": "Always"}
    publish(daemon, "first", reference, **options, platform="linux/amd64")
    code, text = publish_error(daemon, "none", reference, **options, platform="linux/s390x")
    assert code == Code.NOT_FOUND and "the index has nothing for linux/s390x" in text, text
    asked = len(faulty.seen("/manifests/"))
    publish(daemon, "again", reference, secrets=ALICE, pullPolicy="Never", platform="linux/amd64")
    assert len(faulty.seen("/manifests/")) == asked


def test_what_a_proxy_says_ends_no_grant(make_daemon, make_faulty, work):
    """407 is no word of the registry, and of no credentials for it."""
    faulty, artifact = make_faulty(users=USERS, auth="basic"), modelpack(work, sizes=(1000,), seed="proxy")
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/behind", "v1")
    assert_pulls(daemon, "first", reference, artifact.tree, secrets=ALICE)
    faulty.fault("/manifests/", "status", status=407)
    code, text = publish_error(daemon, "asked", reference, secrets=ALICE, pullPolicy="Always")
    assert code == Code.PERMISSION_DENIED and text.endswith("; check the proxy settings"), text
    assert_pulls(daemon, "remembered", reference, artifact.tree, secrets=ALICE, pullPolicy="Never")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_repository_that_is_public_no_more(make_daemon, make_faulty, work, status):
    """What the registry gave to nobody in particular was for all; and then it was for nobody."""
    faulty, artifact = make_faulty(), modelpack(work, sizes=(1000,), seed="public")
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/public", "v1")
    assert_pulls(daemon, "first", reference, artifact.tree)
    faulty.fault("/manifests/", "status", status=status, body=UNKNOWN)
    assert_pulls(daemon, "remembered", reference, artifact.tree, secrets=BOB, pullPolicy="Never")
    code = {401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 404: Code.NOT_FOUND}[status]
    assert publish_error(daemon, "asked", reference, pullPolicy="Always")[0] == code
    for secrets in (None, BOB):
        assert publish_error(daemon, "forgotten", reference, secrets=secrets, pullPolicy="Never")[0] == code


def test_joining_a_pull_needs_credentials_of_its_own(make_daemon, make_faulty, work):
    faulty = make_faulty(users={"alice": ALICE["password"], "bob": BOB["password"]}, auth="basic")
    artifact = modelpack(work, sizes=(2 << 20,), seed="slow")
    daemon, reference = make_daemon([faulty.config()]), faulty.add(artifact, "team/slow", "v1")
    faulty.rate = 1 << 20
    request = daemon.csi().publish_request("alice", daemon.target("alice"), reference, secrets=ALICE)
    running = daemon.csi().NodePublishVolume.future(request, timeout=60)
    while not faulty.seen("/blobs/"):
        time.sleep(0.02)
    for secrets in (None, MALLORY):
        code, text = publish_error(daemon, "thief", reference, secrets=secrets)
        assert code == Code.UNAUTHENTICATED, text
    assert not running.done()
    publish(daemon, "bob", reference, secrets=BOB)
    running.result(60)
    weights = max(artifact.blobs, key=lambda blob: blob.size).digest
    assert len(faulty.seen(weights)) == 1, "each blob came once"
    wait_idle(daemon)


def test_what_came_in_part_is_for_its_repository(make_daemon, make_faulty, work):
    """Whoever knows a digest could see, at a registry of their own, from which byte on this node asks for it."""
    faulty, artifact = make_faulty(), modelpack(work, sizes=(8 << 20,), seed="part")
    weights = max(artifact.blobs, key=lambda blob: blob.size).digest
    victim, thief = (faulty.add(artifact, repository, "v1") for repository in ("team/a", "team/b"))
    daemon = make_daemon([faulty.config()], config={"pull": {"give_up": "1s"}})
    faulty.fault(f"/blobs/{weights}", "truncate", after=4 << 20, times=1)
    faulty.fault(f"/blobs/{weights}", "status", status=503)
    assert daemon.ctl("pull", victim).code != 0
    wait_idle(daemon)
    faulty.clear_faults()
    assert daemon.ctl("pull", thief).code == 0
    [request] = faulty.seen(f"team/b/blobs/{weights}")
    assert request.headers.get("range", "bytes=0-").startswith("bytes=0-"), request
    assert daemon.ctl("pull", victim).code == 0
    assert not faulty.seen(f"team/a/blobs/{weights}")[-1].headers["range"].startswith("bytes=0-")


def test_no_core_dumps(tenants):
    with open(f"/proc/{tenants.daemon.pid}/limits", encoding="ascii") as file:
        [line] = [line for line in file if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"], line


# A secret in every place where one can be, and each of them nowhere else.

class SecretWatch(Watch):
    """Looks at argv and environment of the daemon and its workers until it is left."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon, self.seen = daemon, b""

    def look(self):
        for pid in [self.daemon.pid, *self.daemon.worker_pids()]:
            self.seen += everything_of(pid)


def pieces(user, password):
    """What a careless program would write: plain, as base64, as a hash that can be guessed."""
    pair = f"{user}:{password}".encode()
    found = [password.encode()]
    for text in (pair, password.encode()):
        digest = hashlib.sha256(text)
        found += [base64.b64encode(text).rstrip(b"="), digest.digest(), digest.hexdigest().encode()]
    return found


def test_secrets_are_nowhere(make_daemon, make_faulty, work):
    user = "canary-user"
    secret = {name: f"Canary-{name}-5e1f" for name in ("pod", "node", "ctl", "wrong", "identity", "token")}
    faulty = make_faulty(users={user: secret["pod"], "ctl": secret["ctl"]}, auth="bearer")
    other = make_faulty(users={user: secret["node"]}, auth="basic")
    faulty.tokens[secret["token"]] = ["bearer", time.monotonic() + 3600, 1 << 30]
    node = os.path.join(work, "docker.json")
    with open(node, "w", encoding="utf-8") as file:
        json.dump({"auths": {other.host: {"username": user, "password": secret["node"]}}}, file)
    daemon = make_daemon([faulty.config(), other.config()], config={"credentials": {"docker_config": node}})
    private, of_node, unchecked = (registry.add(modelpack(work, sizes=(4 << 20,), seed=name), f"team/{name}", "v1")
                                   for registry, name in ((faulty, "pod"), (other, "node"), (faulty, "absent")))

    def config(**auth):
        return {".dockerconfigjson": json.dumps({"auths": {faulty.host: auth}})}

    asked = [(private, {"username": user, "password": secret["pod"]}), (of_node, None),
             (private, config(username=user, password=secret["wrong"])),
             (unchecked, config(identitytoken=secret["identity"])), (unchecked, config(registrytoken=secret["token"]))]
    told, given = [], 0
    with SecretWatch(daemon) as watch:
        for i, (reference, secrets) in enumerate(asked):
            with contextlib.ExitStack() as stack:
                stack.callback(lambda n=i: daemon.csi().unpublish(f"pod{n}", daemon.target(f"pod{n}")))
                try:
                    publish(daemon, f"pod{i}", reference, secrets=secrets)
                    given += 1
                except grpc.RpcError as error:
                    told.append(error.details())
        with control_client(daemon.control_socket) as control:
            list(control.Pull(control.pb.PullRequest(reference=private, username="ctl", password=secret["ctl"],
                                                     policy="Always"), timeout=60))
    wait_idle(daemon)
    daemon.restart()
    for command in (["status"], ["events"], ["events", "--output", "json"], ["ls"], ["inspect", private]):
        told.append("".join(daemon.ctl(*command)[1:]))
    assert given == 3, told  # the pod's, the node's, the token
    assert len(faulty.tokens) > 2
    needles = [token.encode() for token in faulty.tokens]
    for name, value in secret.items():
        needles += pieces("ctl" if name == "ctl" else user, value)
    for needle in needles:
        assert needle not in watch.seen, (needle, "on a command line or in an environment")
        assert needle not in "".join(told).encode(), (needle, "told")
    assert not files_with(daemon.folder, needles)  # the log, the store, its index with its log
