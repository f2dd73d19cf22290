"""The folders of the five claims, and a mark for tests of their results."""

import pytest
import yaml

from support.clone import ROOT

CLAIMS = ROOT / "claims"
DVC = yaml.safe_load((CLAIMS / "dvc.yaml").read_text())["stages"]
NAMES: list[str] = DVC["measure"]["foreach"]
FOLDERS = [CLAIMS / name for name in NAMES]

measured = pytest.mark.skipif(
    not (CLAIMS / "dvc.lock").exists(),
    reason="no results in git: they have not been measured with this code (`make claims`)",
)
