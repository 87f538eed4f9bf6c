"""Copies of the fixture hosts, with apply and revert as the command runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

from forwarder import config
from forwarder.config import Config
from forwarder.host import apply as applying
from forwarder.host import site, stages
from forwarder.host.audit import Audit
from forwarder.host.journal import Journal
from forwarder.host.root import Host

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "host"
NAMES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
XEON, EPYC, VM, ENA, LAPTOP, CLOUD = (
    "synthetic-xeon-i40e-mlx5",
    "synthetic-epyc-ice",
    "synthetic-vm-virtio",
    "synthetic-aws-ena",
    "synthetic-laptop",
    "cloud-vm",
)
CAPTURED = {CLOUD, "lab-node"}  # read from a real host; make.py writes the others


def copied(name: str, folder: Path) -> Path:
    """A host that may be written to."""
    target = folder / name
    shutil.copytree(FIXTURES / name, target, symlinks=True)
    return target


def settings(**keys: object) -> Config:
    """The defaults but for these: `dataplane_workers=2`."""
    return config.load(overrides={k.replace("_", ".", 1): v for k, v in keys.items()})


class Tuned:
    """A host with its journal: what a call of the command has."""

    def __init__(self, root: Path, host: Host | None = None, boot: str = "") -> None:
        self.root = root
        self.host = host or Host(root)
        folder = self.host.path("/var/lib/vcfwd/tune")
        self.journal = Journal(folder, boot or self.host.boot_id())
        self.audit = Audit(self.host, folder)
        self.said: list[str] = []

    def survey(self, *nics: str, conf: Config | None = None, given: bool = False) -> site.Survey:
        return site.survey(self.host, conf or settings(), nics, given=given)

    def apply(self, *names: str, nics: tuple[str, ...] = (), run: str = "run") -> applying.Done:
        where = self.survey(*nics).site
        chosen = stages.select(names)
        applying.may_apply(where, chosen)
        with self.journal.locked():
            return applying.apply(where, chosen, self.journal, self.audit, self.said.append, run)

    def revert(self, force: bool = False) -> applying.Done:
        with self.journal.locked():
            return applying.revert(
                self.host, self.journal, self.audit, self.said.append, force=force
            )


def tree(root: Path) -> dict[str, str]:
    """Every file of a host but vcfwd's own, in the form in which its values count."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_file() and not path.is_symlink() and not name.startswith("var/lib/vcfwd"):
            text = path.read_text(errors="surrogateescape").strip()
            if name.endswith("transparent_hugepage/enabled"):
                text = text.partition("[")[2].partition("]")[0] or text
            if name.endswith("kernel/printk"):
                text = " ".join(text.split())
            found[name] = "0" if text in ("", "0") else text
    return found
