# SPDX-License-Identifier: Apache-2.0
"""A real docker-registry on loopback, optionally with Basic authentication or behind nginx with TLS."""
import crypt  # pylint: disable=deprecated-module
import os
import re
import shutil
import subprocess

from lib.push import PushClient
from lib.sandbox import Process, answers, hold_port, pick_port, wait_for

REGISTRY_CONFIG = """version: 0.1
log: {{ level: warn, accesslog: {{ disabled: false }} }}
storage:
  filesystem: {{ rootdirectory: {root}/storage }}
  delete: {{ enabled: true }}
http: {{ addr: "127.0.0.1:{port}", relativeurls: true, secret: test }}
{auth}"""
NGINX_CONFIG = """daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log; worker_processes 1; {user}
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{
    listen 127.0.0.1:{port} ssl{http2}; server_name localhost;
    ssl_certificate {root}/server.pem; ssl_certificate_key {root}/server.key;
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""


def make_ca(folder):
    """A CA and a certificate for localhost and 127.0.0.1: folder/{ca.pem,server.pem,server.key}."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
            "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    with open(os.path.join(folder, "ext"), "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "ext", "-out", "server.pem")
    return os.path.join(folder, "ca.pem")


class Registry:
    """`users` {name: password} turns Basic authentication on, `tls` puts nginx with a CA of our own in front.

    .host is "127.0.0.1:PORT" as references name it, .ca_file the CA or None."""

    def __init__(self, folder, users=None, tls=False, http2=False):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.users, self.tls, self.http2 = folder, users, tls, http2
        self.access_log = os.path.join(folder, "access.log")
        self.processes, self.ca_file, self.held = [], None, None
        self.port = self.upstream = pick_port()
        self.host = f"127.0.0.1:{self.port}"
        self.start()

    @staticmethod
    def available(tls=False):
        return shutil.which("docker-registry") and (not tls or find_nginx())

    def start(self):
        if self.held:
            self.held.close()
        auth = ""
        if self.users:
            path = os.path.join(self.folder, "htpasswd")
            with open(path, "w", encoding="ascii") as file:
                for name, password in self.users.items():
                    salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)
                    file.write(f"{name}:{crypt.crypt(password, salt)}\n")
            auth = f"auth: {{ htpasswd: {{ realm: test, path: {path} }} }}\n"
        config = os.path.join(self.folder, "config.yml")
        with open(config, "w", encoding="ascii") as file:
            file.write(REGISTRY_CONFIG.format(root=self.folder, port=self.upstream, auth=auth))
        self._spawn(["docker-registry", "serve", config], "registry.log", self.upstream, self.access_log)
        if self.tls:
            self._start_nginx()

    def _start_nginx(self):
        if not self.ca_file:
            self.ca_file = make_ca(self.folder)
            self.port = pick_port()
            self.host = f"127.0.0.1:{self.port}"
        config = os.path.join(self.folder, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""
        with open(config, "w", encoding="ascii") as file:
            file.write(NGINX_CONFIG.format(root=self.folder, port=self.port, upstream=self.upstream,
                                           user=user, http2=" http2" if self.http2 else ""))
        self._spawn([find_nginx(), "-p", self.folder, "-c", config], "nginx.out", self.port)

    def _spawn(self, argv, log, port, stdout=None):
        process = Process(argv, os.path.join(self.folder, log), stdout_path=stdout)
        self.processes.append(process)
        wait_for(lambda: process.check_alive() or answers(port), f"{argv[0]} on port {port}")

    def stop(self):
        """Stops it; start() brings it back on the same port with the same content."""
        for process in reversed(self.processes):
            process.stop()
        self.processes, self.held = [], hold_port(self.port)

    def client(self, user=None):
        """A PushClient; with Basic authentication as `user`, by default the first."""
        auth = None
        if self.users:
            user = user or next(iter(self.users))
            auth = (user, self.users[user])
        return PushClient(self.host, auth, self.ca_file)

    def push(self, artifact, repository, tag="latest"):
        """Pushes a lib.artifacts.Artifact; returns the reference "host/repository:tag"."""
        artifact.push(self.client(), repository, tag)
        return f"{self.host}/{repository}:{tag}"

    def requests(self):
        """[(method, path, status)] so far.  The log is written after the answer: let requests settle."""
        with open(self.access_log, encoding="utf-8", errors="replace") as file:
            return [(m[1], m[2], int(m[3])) for m in
                    re.finditer(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d+)', file.read())]

    def blob_bytes(self):
        """How many bytes of blobs were sent, whole or in ranges."""
        with open(self.access_log, encoding="utf-8", errors="replace") as file:
            return sum(int(m[1]) for m in
                       re.finditer(r'"GET \S*/blobs/sha256:\S+ HTTP/[\d.]+" 20[06] (\d+)', file.read()))

    def blob_gets(self):
        """How many GETs of blobs there were."""
        return sum(method == "GET" and "/blobs/sha256:" in path for method, path, _ in self.requests())

    def config(self):
        """This registry as an entry of the daemon's `registries`."""
        if self.tls:
            return {"host": self.host, "ca_file": self.ca_file}
        return {"host": self.host, "plain_http": True}


def find_nginx():
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
