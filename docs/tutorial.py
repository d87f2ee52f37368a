"""Makes the pictures of docs/tutorial.md anew, from a folder in which its commands were typed:

    python docs/tutorial.py           # types them first, in an empty folder: five minutes of processor time
    python docs/tutorial.py FOLDER    # its `python first.py` was typed as `python first.py | tee first.txt`

Needs what docs/screenshots.py needs.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from browser import chromium
from PIL import Image
from platformdirs import user_cache_dir
from screenshots import HERE, excerpt, save

PAGE = HERE / "tutorial.md"
WIDTH = 900  # pixels
PLAIN = "#figure-parallel, #figure-pair, .soft { display: none !important }"
ALL = "document.querySelector('#against-whole').click()"


def main() -> None:
    """Types the commands if no folder is given, and writes the pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(*sys.argv[1:2] or [scratch]).resolve()
        if len(sys.argv) == 1:
            type_commands(project)
        script(project)
        (ideas,) = project.glob("outputs/reports/*/report.html")
        swept, searched = sorted(project.glob("outputs/sweeps/*/*/report.html"))
        for page, name, first, last, click in (
            (ideas, "tutorial-ideas", "#figure-curves", "#curves-legend", ""),
            (swept, "tutorial-seeds", "body", "#figure-against", ""),
            (searched, "tutorial-search", "#figure-against", "#figure-against", ALL),
        ):
            with chromium(WIDTH, 900) as browser:
                excerpt(browser, page, name, PLAIN, first, last, click, "tutorial.py")


def type_commands(project: Path) -> None:
    """Types what the page tells its reader to type, in order, in *project*."""
    text = PAGE.read_text(encoding="utf-8")
    (project / "first.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], encoding="utf-8")
    (project / "data" / "MNIST").mkdir(parents=True)
    (project / "data" / "MNIST" / "raw").symlink_to(Path(user_cache_dir()) / "mnist_exp" / "mnist")  # torchvision's
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("python") and "mnist_exp.ui" not in line:
                typed = line.replace("first.py", "first.py | tee first.txt")
                subprocess.run(["bash", "-o", "pipefail", "-c", typed], cwd=project, check=True)


def script(project: Path) -> None:
    """Draws what the script printed: the test accuracy of each epoch, and which of them `Best` has chosen."""
    printed = (project / "first.txt").read_text(encoding="utf-8")
    accuracies = [float(each) for each in re.findall(r"Test Accuracy: ([\d.]+)", printed)]
    epochs = range(1, len(accuracies) + 1)
    chosen = [each for each in epochs if accuracies[each - 1] > max(accuracies[: each - 1], default=0)]
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot(epochs, accuracies, color="0.7", marker="o", markerfacecolor="white", label="an epoch")
    axes.plot(chosen, [accuracies[each - 1] for each in chosen], "o", color="C0", label="the best so far")
    axes.set(xlabel="epoch", ylabel="test accuracy, %", xticks=epochs)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(project / "first.png", dpi=130)
    save(Image.open(project / "first.png"), "tutorial-script", "tutorial.py")


if __name__ == "__main__":
    main()
