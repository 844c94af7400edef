# SPDX-License-Identifier: Apache-2.0
"""The tools of others that tests compare with, and the layout that these read."""
import json
import os
import subprocess


def tool(*argv, **options):
    """Runs a pusher, bounded."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def oci_layout(folder, artifact, tag):
    """An OCI image layout with the artifact, written by hand."""
    blobs = os.path.join(folder, "blobs/sha256")
    os.makedirs(blobs)

    def put(data, digest):
        with open(os.path.join(blobs, digest.removeprefix("sha256:")), "wb") as file:
            for chunk in data:
                file.write(chunk)

    for blob in artifact.blobs:
        put(blob.chunks(), blob.digest)
    put([artifact.manifest], artifact.digest)
    descriptor = {"mediaType": artifact.media_type, "digest": artifact.digest, "size": len(artifact.manifest),
                  "annotations": {"org.opencontainers.image.ref.name": tag}}
    for name, value in (("oci-layout", {"imageLayoutVersion": "1.0.0"}),
                        ("index.json", {"schemaVersion": 2, "manifests": [descriptor]})):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            json.dump(value, file)
    return f"oci:{folder}:{tag}"
