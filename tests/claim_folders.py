"""The folders of the five claims in properties/, and a mark for tests of their results."""

import pytest

import report
from clone import ROOT

PROPERTIES = ROOT / "properties"
FOLDERS = [PROPERTIES / report.CLAIMS / name for name in report.FOLDERS]

measured = pytest.mark.skipif(
    not (PROPERTIES / "dvc.lock").exists(),
    reason="no results in git: they have not been measured with this code (`make properties`)",
)
