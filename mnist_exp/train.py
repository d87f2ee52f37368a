"""`python -m mnist_exp.train`, or `mnist-exp`: trains a network, or with -m a sweep of them."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_exp import config
from mnist_exp.config.overrides import check_text
from mnist_exp.console import command_line, exits, guard, help, terminal
from mnist_exp.console.arguments import version
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.run import one, resume

config.register()
resume.register()
help.register()


@hydra.main(version_base="1.3", config_path=config.conf_dir(), config_name="train")  # type: ignore[untyped-decorator]  # hydra ships no types
def main(cfg: DictConfig) -> float:
    """Trains one run; returns the validation accuracy that a sweep maximises."""
    try:
        return one.train(guard.parse_once(cfg), *one.from_hydra()).objective
    except ExperimentError as error:
        if HydraConfig.get().mode is RunMode.RUN:  # Hydra would say something of its own first
            code = exits.explain(error)
            if code == ConfigError.exit_code:
                guard.leave_nothing()
            sys.exit(code)
        raise


def cli() -> None:
    """Runs `main`, the Hydra entry point; every error becomes a sentence and an exit code."""
    if "--version" in sys.argv[1:]:  # Hydra would say its own
        terminal.console.print(version())
        return
    sys.exit(exits.run(_main, prints_result=False))


def _main() -> None:
    check_text(sys.argv[1:])
    sys.argv[1:] = command_line.arranged(sys.argv[1:])
    main()


if __name__ == "__main__":
    cli()
