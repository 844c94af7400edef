# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Registries as they are: Basic, Bearer, TLS, credentials and where they go, redirects, and secrets that stay secret."""
import base64
import json
import os
import re
import signal
import ssl
import subprocess
import threading

import grpc
import pytest

from lib.artifacts import modelpack
from lib.check import (EXIT_OF, assert_pulls, assert_sentence, everything_of, files_with, publish, publish_error,
                       wait_idle)
from lib.csi import control_client
from lib.registry import make_ca
from lib.sandbox import wait_for

Code = grpc.StatusCode
MIB = 1 << 20
USER, PASSWORD = "alice", "Correct-Horse-77"
BLOBS = "/blobs/sha256:"


def docker_config(host, user=USER, password=PASSWORD):
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}})


def small(folder, seed=0):
    return modelpack(folder, sizes=(100_000,), seed=seed)


@pytest.fixture(name="node_config")
def node_config_fixture(work):
    """node_config(text): a docker config.json of the node; gives the daemon's config."""
    path = os.path.join(work, "docker-config.json")

    def write(text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o600)
        return {"credentials": {"docker_config": path}}

    return write


def assert_refused(daemon, reference, code, words, **options):
    """CSI and cache-ctl refuse alike, in one clear sentence with these words."""
    got, text = publish_error(daemon, "refused", reference, **options)
    assert got == code, text
    assert re.search(words, text, re.I), text
    if not options:
        result = daemon.ctl("pull", reference)
        assert result.code == EXIT_OF.get(code, 1), result
        assert re.search(words, result.stderr, re.I), result
    wait_idle(daemon)
    return text


# Who asks: from the volume's secret or the node's file, by Basic or Bearer.

SECRETS = {
    "pair": lambda host: {"username": USER, "password": PASSWORD},
    "dockerconfigjson": lambda host: {".dockerconfigjson": docker_config(host)},
    "dockercfg": lambda host: {".dockercfg": json.dumps(json.loads(docker_config(host))["auths"])},
}


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("secret", SECRETS)
def test_credentials_of_the_volume(make_daemon, make_faulty, work, auth, secret):
    faulty, artifact = make_faulty(users={USER: PASSWORD}, auth=auth), small(work)
    daemon = make_daemon([faulty.config()])
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/private", "v1"), artifact.tree,
                 secrets=SECRETS[secret](faulty.host))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_credentials_of_the_node(make_daemon, make_faulty, node_config, work, auth):
    faulty, artifact = make_faulty(users={USER: PASSWORD}, auth=auth), small(work)
    daemon = make_daemon([faulty.config()], config=node_config(docker_config(faulty.host)))
    reference = faulty.add(artifact, "team/private", "v1")
    assert daemon.ctl("pull", reference).code == 0
    assert_pulls(daemon, "pod", reference, artifact.tree)


def test_credentials_of_cache_ctl(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(users={USER: PASSWORD}, auth="basic"), small(work)
    client = make_daemon([faulty.config()])
    with control_client(client.control_socket) as control:
        request = control.pb.PullRequest(reference=faulty.add(artifact, "team/private", "v1"), username=USER,
                                         password=PASSWORD)
        assert list(control.Pull(request, timeout=60))[-1].digest == artifact.digest


def test_docker_registry_with_basic_authentication(make_daemon, make_registry, work):
    registry, artifact = make_registry(users={USER: PASSWORD}), small(work)
    daemon = make_daemon([registry.config()])
    reference = registry.push(artifact, "team/private", "v1")
    assert_pulls(daemon, "pod", reference, artifact.tree, secrets=SECRETS["pair"](registry.host))


def test_anonymous_token(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(auth="bearer"), small(work)
    faulty.anonymous = True
    daemon = make_daemon([faulty.config()])
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/public", "v1"), artifact.tree)
    assert faulty.seen("^/token"), "the token endpoint was not asked"


def test_token_realm_at_another_host(make_daemon, make_faulty, work):
    faulty, realm = make_faulty(users={USER: PASSWORD}, auth="bearer"), make_faulty(users={USER: PASSWORD})
    artifact, faulty.realm = small(work), f"http://{realm.host}/token"
    realm.tokens = faulty.tokens
    daemon = make_daemon([faulty.config(), realm.config()])
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/private", "v1"), artifact.tree,
                 secrets=SECRETS["pair"](faulty.host))
    assert realm.seen("^/token") + realm.seen("^/token", "POST")


def test_tokens_that_end_are_renewed(make_daemon, make_faulty, work):
    faulty = make_faulty(users={USER: PASSWORD}, auth="bearer")
    artifact, faulty.token_uses = small(work), 3
    daemon = make_daemon([faulty.config()])
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/private", "v1"), artifact.tree,
                 secrets=SECRETS["pair"](faulty.host))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_wrong_password(make_daemon, make_faulty, node_config, work, auth):
    faulty = make_faulty(users={USER: PASSWORD}, auth=auth)
    reference = faulty.add(small(work), "team/private", "v1")
    daemon = make_daemon([faulty.config()], config=node_config(docker_config(faulty.host, password="wrong-4711")))
    text = assert_refused(daemon, reference, Code.UNAUTHENTICATED, "401|credential|password|unauthori[sz]ed")
    assert faulty.host in text
    assert "wrong-4711" not in text + daemon.log()


def test_no_credentials(make_daemon, make_faulty, work):
    faulty = make_faulty(users={USER: PASSWORD}, auth="basic")
    daemon = make_daemon([faulty.config()])
    assert_refused(daemon, faulty.add(small(work), "team/private", "v1"), Code.UNAUTHENTICATED, "credential|401")


def test_forbidden(make_daemon, faulty, work):
    reference = faulty.add(small(work), "team/forbidden", "v1")
    faulty.fault("/manifests/", "status", status=403,
                 body=b'{"errors":[{"code":"DENIED","message":"not for you"}]}')
    daemon = make_daemon([faulty.config()])
    text = assert_refused(daemon, reference, Code.PERMISSION_DENIED, "403|not allowed|denied")
    assert "not for you" in text, "the registry's own words are missing"


def test_credentials_of_one_registry_are_not_for_another(make_daemon, make_faulty, node_config, work):
    mine, other = make_faulty(users={USER: PASSWORD}, auth="basic"), make_faulty()
    artifact = small(work)
    daemon = make_daemon([mine.config(), other.config()], config=node_config(docker_config(mine.host)))
    assert_pulls(daemon, "pod", other.add(artifact, "team/open", "v1"), artifact.tree)
    assert not [r for r in other.seen() if "authorization" in r.headers]


# Redirects are our own loop.

@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_redirected_blobs_come_without_authorization(make_daemon, make_faulty, work, auth):
    front, storage = make_faulty(users={USER: PASSWORD}, auth=auth), make_faulty()
    artifact = small(work)
    reference = front.add(artifact, "team/private", "v1")
    storage.add(artifact, "team/private", "v1")
    front.fault(BLOBS, "redirect", location=f"http://{storage.host}{{path}}")
    daemon = make_daemon([front.config(), storage.config()])
    assert_pulls(daemon, "pod", reference, artifact.tree, secrets=SECRETS["pair"](front.host))
    asked = storage.seen(BLOBS)
    assert asked
    assert not [r for r in asked if "authorization" in r.headers]
    assert not [r for r in asked if PASSWORD in str(r.headers)]


def test_redirect_to_the_same_registry(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(users={USER: PASSWORD}, auth="basic"), small(work)
    reference = faulty.add(artifact, "team/a", "v1")
    faulty.add(artifact, "team/b", "v1")
    for blob in artifact.blobs:
        faulty.fault(f"team/a{BLOBS}{blob.sha256}", "redirect", location=f"/v2/team/b/blobs/{blob.digest}")
    daemon = make_daemon([faulty.config()])
    assert_pulls(daemon, "pod", reference, artifact.tree, secrets=SECRETS["pair"](faulty.host))


def test_redirect_loop_ends(make_daemon, faulty, work):
    reference = faulty.add(small(work), "team/loop", "v1")
    faulty.fault(BLOBS, "redirect", location="{path}")
    daemon = make_daemon([faulty.config()])
    text = assert_refused(daemon, reference, Code.FAILED_PRECONDITION, "redirect")
    assert text
    assert len(faulty.seen(BLOBS)) < 200


def test_redirect_from_tls_to_plain_http_is_refused(make_daemon, make_faulty, work):
    front, storage = make_faulty(tls=True), make_faulty()
    artifact = small(work)
    reference = front.add(artifact, "team/model", "v1")
    storage.add(artifact, "team/model", "v1")
    front.fault(BLOBS, "redirect", location=f"http://{storage.host}{{path}}")
    daemon = make_daemon([front.config()])
    assert_refused(daemon, reference, Code.FAILED_PRECONDITION, "redirect|http")
    assert not storage.seen()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "http://"])
def test_redirect_to_what_is_no_http_is_refused(make_daemon, faulty, work, location):
    reference = faulty.add(small(work), "team/odd", "v1")
    faulty.fault(BLOBS, "redirect", location=location)
    daemon = make_daemon([faulty.config()])
    assert_refused(daemon, reference, Code.FAILED_PRECONDITION, "redirect")


# TLS.

def test_tls_with_a_ca_file(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(tls=True), small(work)
    assert_pulls(make_daemon([faulty.config()]), "pod", faulty.add(artifact, "team/tls", "v1"), artifact.tree)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_tls_of_nginx_before_docker_registry(make_daemon, make_registry, work, http2):
    registry, artifact = make_registry(tls=True, http2=http2), modelpack(work)
    daemon = make_daemon([registry.config()])
    assert_pulls(daemon, "pod", registry.push(artifact, "team/tls", "v1"), artifact.tree)


def test_unknown_ca_is_refused(make_daemon, make_faulty, work):
    faulty = make_faulty(tls=True)
    daemon = make_daemon([{"host": faulty.host}])
    reference = faulty.add(small(work), "team/tls", "v1")
    text = assert_refused(daemon, reference, Code.FAILED_PRECONDITION, "certificate")
    assert "ca_file" in text, "the sentence does not say what to do"
    assert not faulty.seen()


def test_ca_of_another_is_refused(make_daemon, make_faulty, work):
    faulty, other = make_faulty(tls=True), os.path.join(work, "other")
    os.makedirs(other)
    daemon = make_daemon([{"host": faulty.host, "ca_file": make_ca(other)}])
    assert_refused(daemon, faulty.add(small(work), "team/tls", "v1"), Code.FAILED_PRECONDITION, "certificate")


def test_skip_verify(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(tls=True), small(work)
    daemon = make_daemon([{"host": faulty.host, "skip_verify": True}])
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/tls", "v1"), artifact.tree)


def test_name_of_the_certificate_is_checked(make_daemon, make_faulty, work):
    """A good certificate of the right CA, but for another host."""
    faulty = make_faulty(tls=True)
    folder = os.path.dirname(faulty.ca_file)
    with open(os.path.join(folder, "ext"), "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:other.example\n")
    subprocess.run(["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                    "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "other.pem"],
                   check=True, capture_output=True, cwd=folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/other.pem", f"{folder}/server.key")
    faulty.server.socket._context = context  # pylint: disable=protected-access  # of the next accept()
    daemon = make_daemon([faulty.config()])
    assert_refused(daemon, faulty.add(small(work), "team/tls", "v1"), Code.FAILED_PRECONDITION,
                   "certificate|name|subject")
    assert not faulty.seen()


def test_plain_http_is_refused_where_it_is_not_configured(make_daemon, faulty, work):
    daemon = make_daemon([])
    reference = faulty.add(small(work), "team/plain", "v1")
    code, text = publish_error(daemon, "plain", reference)
    assert code in (Code.FAILED_PRECONDITION, Code.UNAVAILABLE), text
    assert re.search("TLS|SSL|https", text), text
    assert "plain_http" in text, "the sentence does not say what to do"
    assert not faulty.seen(), "something was sent without TLS"


# Secrets stay secret.

@pytest.mark.parametrize("good", [True, False], ids=["accepted", "refused"])
def test_a_secret_is_nowhere(make_daemon, make_faulty, work, good):
    canary = "Canary-5e1f-Pa55"
    faulty = make_faulty(users={USER: canary if good else PASSWORD}, auth="bearer")
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(modelpack(work, sizes=(4 * MIB,)), "team/secret", "v1")
    faulty.rate = 4 * MIB
    secrets, shown, seen = {"username": USER, "password": canary}, [], b""
    target, errors = daemon.target("pod"), []

    def run():
        try:
            daemon.csi().publish("pod", target, reference, secrets=secrets, seconds=60)
        except grpc.RpcError as error:
            errors.append(error.details())

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        for pid in [daemon.pid, *daemon.worker_pids()]:
            seen += everything_of(pid)
        shown.append(daemon.ctl("status", "--output", "json").stdout)
        thread.join(0.05)
    assert bool(errors) != good, errors
    for command in (["events"], ["events", "--output", "json"], ["ls"], ["inspect", reference]):
        shown.append("".join(daemon.ctl(*command)[1:]))
    wait_idle(daemon)
    pair = base64.b64encode(f"{USER}:{canary}".encode()).decode().rstrip("=")
    needles = [canary, pair, base64.b64encode(canary.encode()).decode().rstrip("="), *faulty.tokens]
    for needle in needles:
        assert needle.encode() not in seen, "on a command line or in an environment"
        assert needle not in "".join(shown), "told by cache-ctl"
        assert needle not in "".join(errors), "in an error"
        assert needle not in daemon.log(), "in the log"
    assert not files_with(daemon.folder, [needle.encode() for needle in needles])


def test_a_malformed_secret_is_refused_and_not_quoted(make_daemon, faulty, work):
    daemon, reference = make_daemon([faulty.config()]), faulty.add(small(work), "team/open", "v1")
    for secrets in ({".dockerconfigjson": '{"auths": {"x": {"auth": "Canary-77-broken"'},
                    {"username": "Canary-77-alone"}, {"unknown-key": "Canary-77-value"}):
        code, text = publish_error(daemon, "pod", reference, secrets=secrets)
        assert code == Code.INVALID_ARGUMENT, text
        assert "secret" in text
        assert "Canary-77" not in text + daemon.log()
    assert not faulty.seen()


def test_a_broken_config_of_the_node_is_told_and_not_quoted(make_daemon, faulty, node_config, work):
    daemon = make_daemon([faulty.config()], config=node_config('{"auths": {"x": "Canary-78"'), start=False)
    artifact = small(work)
    try:
        daemon.start()
    except RuntimeError as error:  # refusing to start is fine as well
        assert_sentence(str(error).splitlines()[-1])
    else:
        daemon.ctl("pull", faulty.add(artifact, "team/open", "v1"))
    wait_for(lambda: "docker-config.json" in daemon.log(), "a word about the file", 5)
    assert "Canary-78" not in daemon.log()


def test_sighup_rereads_the_credentials_of_the_node(make_daemon, make_faulty, node_config, work):
    faulty, artifact = make_faulty(users={USER: PASSWORD}, auth="basic"), small(work)
    reference = faulty.add(artifact, "team/private", "v1")
    daemon = make_daemon([faulty.config()], config=node_config(docker_config(faulty.host, password="old")))
    assert daemon.ctl("pull", reference).code == 5
    node_config(docker_config(faulty.host))
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.ctl("pull", reference).code == 0, "the new credentials", 15, 0.2)
    assert_pulls(daemon, "pod", reference, artifact.tree)


def test_publish_is_quick_when_the_registry_needs_nothing(make_daemon, faulty, work):
    """A second pod with the same credentials does not ask for a token again for each blob."""
    faulty.auth, faulty.users = "bearer", {USER: PASSWORD}
    daemon, reference = make_daemon([faulty.config()]), faulty.add(modelpack(work), "team/tokens", "v1")
    publish(daemon, "pod", reference, secrets=SECRETS["pair"](faulty.host))
    assert len(faulty.seen("^/token") + faulty.seen("^/token", "POST")) <= 2
