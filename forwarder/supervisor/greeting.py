"""What `vcfwd up` prints when it is ready: where, how, and what to do first."""

from __future__ import annotations

from forwarder.signaling.certs import Certificate
from forwarder.supervisor.datapath import DataPath


def greeting(url: str, datapath: DataPath, certificate: Certificate) -> list[str]:
    lines = [
        f"url          {url}",
        f"data path    {datapath.choice.path}: {datapath.choice.why}",
        f"workers run  {datapath.scheduling.name}: {datapath.scheduling.why}",
    ]
    hint = ""
    if certificate.self_signed:
        digest = certificate.sha256.hex()
        lines.append(f"certificate  sha-256 {digest} (self-signed)")
        hint = f" --cert-hash {digest}"
    lines += [
        "a room       vcfwd room create ROOM",
        "a token      vcfwd token create --room ROOM --role active --name NAME > token",
        f"join         vcfwd bot subscribe --room ROOM --url {url} --token-file token{hint}",
    ]
    return lines
