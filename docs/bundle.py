"""Regenerates mnist_exp/report/vega.js, which draws the figures of the report page:

    python docs/bundle.py

It is vega-embed with Vega, Vega-Lite and Vega's interpreter of expressions, as one script, from the wheel of
vl-convert-python (extra `browser`). Reports need neither that nor a network.
"""

from importlib import resources
from pathlib import Path

import vl_convert

TARGET = Path(str(resources.files("mnist_exp.report"))) / "vega.js"


def bundle() -> str:
    """The script, with a first line that says what it is and whose."""
    names = ("vega-embed", vl_convert.get_vega_embed_version()), ("vega", vl_convert.get_vega_version())
    versions = ", ".join(f"{name} {version}" for name, version in names)
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").strip()
    assert "</script" not in text
    assert "<!--" not in text
    head = f"/*! {versions}, vega-lite; BSD-3-Clause: see vega.LICENSE. Written by docs/bundle.py. */"
    return f"{head}\n{text}\n"


if __name__ == "__main__":
    TARGET.write_text(bundle(), encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes")  # noqa: T201
