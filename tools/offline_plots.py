"""Write DVC's plots to dvc_plots/index.html, a page that needs no network.

DVC's own page loads Vega from a content delivery network and is blank without it.
"""

import re
import subprocess
from pathlib import Path

import vl_convert

PAGE = Path("dvc_plots/index.html")
GLOBALS = "Object.assign(window, {vega, vegaLite, vegaEmbed});"


def main() -> None:
    """Make DVC write its page, and embed Vega in it."""
    subprocess.run(["dvc", "plots", "show", "--out", PAGE.parent], check=True)
    page = re.sub(r'<script src="https://[^"]*"></script>\s*', "", PAGE.read_text())
    bundle = vl_convert.javascript_bundle(GLOBALS).replace("</script>", r"<\/script>")
    PAGE.write_text(page.replace("</title>", f"</title>\n<script>{bundle}</script>", 1))


if __name__ == "__main__":
    main()
