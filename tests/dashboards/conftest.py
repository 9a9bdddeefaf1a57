"""The tests of `dashboards/` import the generator of the boards from there, and what they share from here."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parents[1] / "dashboards" / "grafana")]
