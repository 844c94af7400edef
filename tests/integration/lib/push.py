# SPDX-License-Identifier: Apache-2.0
"""A small OCI push client on http.client."""
import base64
import http.client
import ssl
from urllib.parse import urlsplit

from lib.content import Reader


class PushClient:
    """Pushes to one registry ("127.0.0.1:5000"); `auth` is (user, password), `ca_file` makes it https."""

    def __init__(self, host, auth=None, ca_file=None):
        self.host, self.headers, self.ca_file = host, {}, ca_file
        if auth:
            self.headers["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()

    def request(self, method, target, body=None, headers=None):
        """Returns (status, headers, body); anything but 2xx and 404 raises."""
        if self.ca_file:
            context = ssl.create_default_context(cafile=self.ca_file)
            connection = http.client.HTTPSConnection(self.host, timeout=120, context=context)
        else:
            connection = http.client.HTTPConnection(self.host, timeout=120)
        connection.blocksize = 1 << 20
        try:
            connection.request(method, target, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status // 100 != 2 and response.status != 404:
            raise RuntimeError(f"{method} {target}: {response.status} {data[:500]!r}")
        return response.status, response.headers, data

    def push_blob(self, repository, blob):
        """Uploads a lib.content.Blob unless the repository has it."""
        if self.request("HEAD", f"/v2/{repository}/blobs/{blob.digest}")[0] == 200:
            return
        _, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/",
                                     headers={"Content-Length": "0"})
        location = urlsplit(headers["Location"])
        query = (location.query + "&" if location.query else "") + f"digest={blob.digest}"
        status, _, data = self.request(
            "PUT", f"{location.path}?{query}", Reader(blob),
            {"Content-Length": str(blob.size), "Content-Type": "application/octet-stream"})
        if status != 201:
            raise RuntimeError(f"PUT of {blob.digest}: {status} {data[:500]!r}")

    def push_manifest(self, repository, reference, data, media_type):
        """Puts manifest bytes under a tag or digest."""
        self.request("PUT", f"/v2/{repository}/manifests/{reference}", data,
                     {"Content-Type": media_type})

    def delete_manifest(self, repository, digest):
        self.request("DELETE", f"/v2/{repository}/manifests/{digest}")
