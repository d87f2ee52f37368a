"""Every command in the documents composes, and a test runs it."""

import importlib.util
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data_fixtures import torchvision_fault
from PIL import Image, ImageDraw, ImageFont
from samples import CACHE, MNIST, REPO

from mnist_exp.console.exits import explain

GUIDE = "add-a-model.md"  # its commands need its files: tests/project/test_experiments.py makes them and runs it
PAGES = [REPO / "README.md", *(page for page in sorted(REPO.glob("docs/**/*.md")) if page.name != GUIDE)]
PROGRAMS = Path(sys.executable).parent
TRAIN = ("python -m mnist_exp.train", "mnist-exp")

# Commands that cannot be composed here, by a part of the line, with the reason.
EXCEPTIONS = {
    "python -m mnist_exp.train --cfg job": "what this test does with all the others",
    "--config-dir my_conf": "its files stand in docs/add-a-model.md; tests/project/test_experiments.py runs them",
    "mnist-exp -sc": "prints the shell's line for tab completion",
    "cluster=slurm": "needs the extra slurm; tests/services/test_slurm.py runs it",
    "python -m mnist_exp.train --help": "tests/console/test_help.py reads it",
    "python -m mnist_exp.train --hydra-help": "Hydra's own page",
}


# Commands that the slow test does not run, by a part of the line, with the reason.
NOT_RUN = {
    "--config-dir my_conf": "its files stand in docs/add-a-model.md; tests/project/test_experiments.py runs them",
    "cluster=": "needs Slurm or Ray",
    "mnist_exp.ui": "serves until Ctrl-C; tests/commands/test_ui.py",
    "tracking.lan": "a server of one's own",
    "tracking.experiment=papers": "hours: python -m benchmarks.papers",
}

# Other programs and programs for developers, by the start of the line: what runs them, or why nothing does.
OTHERS = {
    "python3 -m venv": ".ci/run",
    "source ": ".ci/run",
    "pip install": ".ci/run, with the extras; others than ours stand in the page",
    "mlflow ui": "tests/services/test_browser.py looks at its pages",
    "mlflow models serve": "tests/tracking/test_serve.py, as it stands in docs/compare.md",
    "curl ": "tests/tracking/test_serve.py, as it stands in docs/compare.md",
    "mlflow server": "tests/services/test_team_mlflow.py, with PostgreSQL",
    "sudo ": "an account of the reader's own",
    "export ": "a variable",
    "optuna-dashboard": "not a dependency",
    "eval ": "tests/console/test_completion.py asks a real bash",
    "pre-commit": "needs a clone and the network; .ci/run has its checks",
    "pytest": ".ci/run",
    "MNIST_EXP_ELSEWHERE=win32 pytest": ".ci/run all",
    ".ci/run": "is what runs the rest",
    "python first.py": "below, as a program of its page",
    "mkdocs": ".ci/run",
    "python docs/configuration.py": "tests/project/test_documents.py holds its page against it",
    "python docs/files.py": "tests/project/test_files.py holds its page against it",
    "python docs/captures.py": "needs tmux and minutes",
    "python docs/screenshots.py": "needs a browser and minutes",
    "python docs/tutorial.py": "needs a browser and minutes",
    "python -m benchmarks": "hours; tests/project/test_benchmarks.py runs one, and below: there are such benchmarks",
}
DEVELOPERS = [REPO / "CONTRIBUTING.md", REPO / "benchmarks" / "README.md"]


def lines(text: str) -> Iterator[str]:
    """The commands of each fenced block of shell, with continued lines joined, without prompts."""
    for block in re.findall(r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.split(r"\s&&\s|;\s", line.strip().removeprefix("$ "))


def commands(text: str) -> Iterator[str]:
    """The same, normalised by shlex, without comments."""
    for line in lines(text):
        if argv := shlex.split(line, comments=True):
            yield shlex.join(argv)


def ours(text: str) -> list[str]:
    """The commands that run a module of this project."""
    return [line for line in commands(text) if re.match(r"(\w+=\S+ )*(python -m mnist_exp\b|mnist-exp\b)", line)]


def files(text: str) -> dict[str, str]:
    """The files of a page by name: a line with the name and a final colon, then a block."""
    return dict(re.findall(r"^[^`\n]*`([\w/]+\.\w+)`[^`\n]*:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def programs(text: str) -> list[str]:
    """The other blocks of Python."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if block not in files(text).values()]


LINES = [(page, line) for page in PAGES for line in ours(page.read_text())]


def overrides(line: str) -> list[str]:
    """The arguments of the command."""
    argv = shlex.split(line)
    while re.fullmatch(r"[A-Z_]+=.*", argv[0]):  # variables of the environment
        argv.pop(0)
    return argv[1:] if argv[0] == "mnist-exp" else argv[3:]


def test_the_front_page_is_a_screen_and_a_half() -> None:
    """Of 50 lines; what is wider than a screen does not count as shorter."""
    text = (REPO / "README.md").read_text().splitlines()
    assert len(text) <= 75
    assert max(len(line) for line in text if not line.startswith(("|", "[!"))) <= 141


@pytest.mark.integration
@pytest.mark.parametrize(
    ("page", "line"), LINES, ids=[f"{page.name}-{number}" for number, (page, _) in enumerate(LINES)]
)
def test_a_command_of_the_documents_composes(
    page: Path, line: str, command: Callable[..., tuple[int, str, str]]
) -> None:
    if any(part in line for part in EXCEPTIONS):
        return
    if "cluster=slurm" in line:
        pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    if not any(start in line for start in TRAIN):
        (module,) = re.findall(r"python -m (mnist_exp[\w.]*)", line)
        assert (REPO / f"{module.replace('.', '/')}.py").exists() or (REPO / module.replace(".", "/")).is_dir()
        return
    typed = [word for word in overrides(line) if word not in ("-m", "--multirun", "--dry-run")]
    code, out, err = command("--cfg", "job", *single_values(typed))
    assert code == 0, err
    assert "hidden:" in out


def single_values(typed: list[str]) -> list[str]:
    """One point of a sweep: `lr=1e-3` for `lr=1e-3,3e-3`; without search spaces and `resume`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    point = []
    for word in typed:
        override = OverridesParser.create().parse_override(word)
        if override.is_sweep_override():
            if override.is_discrete_sweep():
                first = next(iter(override.sweep_string_iterator()))
                point.append(f"{override.get_key_element()}={first}")
        elif override.get_key_element() != "resume":
            point.append(word)
    return point


def test_every_other_command_is_known_to_be_run_elsewhere() -> None:
    for page in (*PAGES, *DEVELOPERS):
        text = page.read_text()
        for line in set(commands(text)) - set(ours(text)):
            assert line.startswith(tuple(OTHERS)), f"{page.name}: {line}"


def test_the_documents_name_benchmarks_that_exist() -> None:
    pytest.importorskip("psutil", reason="the extra `bench` is not installed")
    from benchmarks import suite

    named = [shlex.split(line) for page in DEVELOPERS for line in commands(page.read_text()) if "m benchmarks" in line]
    for module, *names in [argv[2:] for argv in named]:
        assert importlib.util.find_spec(module)
        assert set(names) <= {*suite.ALL, "table", "--quick"}
    listed = re.findall(r"# some: (.*)$", DEVELOPERS[1].read_text(), re.MULTILINE)[0].split()
    assert listed == [*suite.ALL]


def test_meta_files_and_programs_are_found_in_a_page() -> None:
    page = "This is `a.csv`:\n\n```csv\nx\n```\n\nAnd:\n\n```python\ny\n```\n\n`z.py`, here:\n\n```python\nz\n```\n"
    assert files(page) == {"a.csv": "x\n", "z.py": "z\n"}
    assert programs(page) == ["y\n"]


def test_meta_commands_are_found_in_a_page() -> None:
    page = """
Some `python -m mnist_exp.no` in the text.

```bash
pip install -e . && python -m mnist_exp.train hidden=256  # a first run
$ python -m mnist_exp.train -m hidden=64,128 \\
    'lr=tag(log,interval(1e-4,1e-1))'
MLFLOW_TRACKING_URI=http://x mnist-exp epochs=1
mlflow ui
```

```yaml
python -m mnist_exp.train: nothing
```
"""
    assert ours(page) == [
        "python -m mnist_exp.train hidden=256",
        "python -m mnist_exp.train -m hidden=64,128 'lr=tag(log,interval(1e-4,1e-1))'",
        "MLFLOW_TRACKING_URI=http://x mnist-exp epochs=1",
    ]
    typed = overrides(ours(page)[1])
    assert single_values(typed[1:]) == ["hidden=64"]
    assert overrides(ours(page)[2]) == ["epochs=1"]


def test_meta_a_rotten_command_is_noticed(composed: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="hiden") as caught:
        composed(*overrides("python -m mnist_exp.train hiden=256"))
    assert explain(caught.value) == 2
    assert "Did you mean 'hidden'?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a run, a sweep, and own pictures of digits."""
    folder = tmp_path_factory.mktemp("project")
    for digit in range(10):
        picture = Image.new("L", (80, 80), 255)
        ImageDraw.Draw(picture).text((25, 15), str(digit), fill=0, font=ImageFont.load_default(40))
        (folder / "scans" / str(digit)).mkdir(parents=True)
        picture.save(folder / "scans" / str(digit) / "a.png")
        picture.save(folder / "scans" / f"{digit}.jpg")
    picture.save(folder / "seven.png")
    shutil.copytree(MNIST, folder / "mnist")  # as `data fetch root=$HOME/mnist` would
    (folder / "data" / "MNIST").mkdir(parents=True)
    (folder / "data" / "MNIST" / "raw").symlink_to(MNIST)  # as torchvision would
    for typed in ("", "-m hidden=16,32"):
        run(f"python -m mnist_exp.train {typed}", folder)
    return folder


@pytest.fixture
def project(begun: Path, tmp_path: Path) -> Path:
    """That folder for one page, to which `last` is nothing of another page."""
    shutil.copytree(begun, tmp_path / "project", symlinks=True, ignore=shutil.ignore_patterns("mnist"))
    (tmp_path / "project" / "mnist").symlink_to(begun / "mnist")  # 50 MB
    return tmp_path / "project"


def run(line: str, folder: Path) -> None:
    """Runs one line of a document in *folder*, shortened."""
    argv, variables = command_of(line := shortened(line))
    environ = {**os.environ, "XDG_CACHE_HOME": str(CACHE), "HOME": str(folder), **variables}
    environ["PATH"] = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def command_of(line: str) -> tuple[list[str], dict[str, str]]:
    """The program of *line* with its arguments, and the variables set before it; bash, where only a shell can tell."""
    if re.search(r"[|&;<>$*`]", re.sub(r"\s#.*", "", line)):
        return ["bash", "-c", line], {}
    argv = shlex.split(line, comments=True)
    variables = dict(word.split("=", 1) for word in itertools.takewhile(re.compile("[A-Z_]+=.*").fullmatch, argv))
    name, *others = argv[len(variables) :]
    return [sys.executable if name == "python" else str(PROGRAMS / name), *others], variables


def test_meta_a_line_without_shell_syntax_needs_no_shell() -> None:
    name = "python -m mnist_exp.train 'hidden=[64,32]'  # a comment; with | and $"
    assert command_of(name) == ([sys.executable, "-m", "mnist_exp.train", "hidden=[64,32]"], {})
    assert command_of("TZ=UTC mnist-exp lr=1") == ([str(PROGRAMS / "mnist-exp"), "lr=1"], {"TZ": "UTC"})
    assert command_of("mnist-exp-predict *.png")[0][:2] == ["bash", "-c"]


SHORT = "epochs=1 data.limit=1000 tracking.figures=false"
"""What a command that trains gets, for whatever of it was not typed."""


def shortened(line: str) -> str:
    """*line* with one epoch of few images if it trains, and two trials if it searches."""
    line = re.sub(r"n_trials=\d+", "n_trials=2", line)
    if "mnist_exp.train" not in line or re.search(r"resume=|--help|--cfg", line):
        return line
    command, _, comment = line.partition("  #")
    few = ""
    if "n_trials=" not in command and (search := re.search(r"search=(?!zip|points)(\w+)", command)):
        few = " n_trials=18" if search[1] == "race" else " n_trials=2"  # a race begins with three for each setting
    command = re.sub(r" epochs=\d+", "", command)
    few = "".join(f" {word}" for word in SHORT.split() if f" {word.partition('=')[0]}=" not in command) + few
    return command + few + (f"  #{comment}" if comment else "")


def test_meta_a_line_of_a_document_is_shortened() -> None:
    train = "python -m mnist_exp.train"
    assert shortened(f"{train} lr=1 epochs=20  # long") == f"{train} lr=1 {SHORT}  # long"
    assert shortened(f"{train} data.limit=5,9") == f"{train} data.limit=5,9 epochs=1 tracking.figures=false"
    assert shortened(f"{train} -m search=tpe n_trials=50") == f"{train} -m search=tpe n_trials=2 {SHORT}"
    assert shortened(f"{train} -m search=tpe") == f"{train} -m search=tpe {SHORT} n_trials=2"  # the default is fifty
    assert shortened(f"{train} -m search=zip lr=1,2") == f"{train} -m search=zip lr=1,2 {SHORT}"
    assert shortened(f"{train} -m resume=last n_trials=100") == f"{train} -m resume=last n_trials=2"


@pytest.mark.slow  # minutes
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (MNIST / "verified.json").exists(), reason="python -m mnist_exp.data fetch was not run")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_line_of_a_document_runs(page: Path, project: Path) -> None:
    """With the files of the page, and fewer epochs and trials; then the programs of the page."""
    text = page.read_text()
    for name, body in (own := files(text)).items():
        (project / name).write_text(re.sub(r"^EPOCHS = \d+$", "EPOCHS = 1", body, flags=re.MULTILINE))
    for line in lines(text):
        mine = re.match(r"(\w+=\S+ )*(python -m mnist_exp\b|mnist-exp\b|python \w+\.py\b)", line)
        if not mine or any(part in line for part in NOT_RUN):
            continue
        if "search=" in line:
            pytest.importorskip("optuna", reason="the extra `search` is not installed")
        if "fashion_mnist" in line and not (CACHE / "mnist_exp" / "fashion_mnist" / "verified.json").exists():
            continue  # only torchvision's servers have it; one that failed leaves an empty folder
        if any(name in line and "torchvision" in body for name, body in own.items()) and torchvision_fault():
            continue
        run(line, project)
    for number, program in enumerate(programs(text)):
        (project / f"program_{number}.py").write_text(program)
        run(f"python program_{number}.py", project)
