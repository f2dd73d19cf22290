"""The folders of the five claims, and a mark for tests of their results."""

import pytest

import report as claims_report
from support.clone import ROOT

CLAIMS = ROOT / "claims"
FOLDERS = [CLAIMS / name for name in claims_report.FOLDERS]

measured = pytest.mark.skipif(
    not (CLAIMS / "dvc.lock").exists(),
    reason="no results in git: they have not been measured with this code (`make claims`)",
)
