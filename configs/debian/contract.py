"""Prints what two builds must agree on for the one's supervisor to take over the other's data
plane: the version and layout of the shared memory, and of the steering program's maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from forwarder.dataplane.contract import installed

if __name__ == "__main__":
    print(installed())
