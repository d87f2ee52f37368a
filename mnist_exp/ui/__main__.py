"""`python -m mnist_exp.ui`, or `mnist-exp-ui`: sweeps and runs in a browser, beside MLflow."""

import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from mnist_exp.console import exits
from mnist_exp.console.arguments import Parser
from mnist_exp.console.terminal import console, say
from mnist_exp.errors import ConfigError

ABOUT = """\
Serves a page with this folder's sweeps and runs, newest first, on this machine only: each leads to its own page, which
follows a sweep that runs, and to its view in MLflow, which is started beside it. It only shows. Ctrl-C ends both."""
EXAMPLES = """\
examples
  python -m mnist_exp.ui
  python -m mnist_exp.ui --port 8001 --no-open     on another machine: ssh -L 8001:127.0.0.1:8001 …

exit codes: 0 ended with Ctrl-C · 2 usage, or the port cannot be used
"""


def main(arguments: Sequence[str]) -> None:
    """Serves until Ctrl-C.

    Raises:
        ConfigError: the port cannot be used, or $MLFLOW_TRACKING_URI is no address of a store.
        SystemExit: usage (2), `--help` (0) or SIGTERM (143).
    """
    parser = Parser("ui", ABOUT, EXAMPLES)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1; 0: any that is free [0]")
    parser.add_argument("--no-open", action="store_true", help="print the address, and open no browser")
    parser.add_argument("--no-mlflow", action="store_true", help="do not start MLflow")
    options = parser.read(arguments)
    from mnist_exp.ui.mlflow import MLflow
    from mnist_exp.ui.server import Server

    mlflow = MLflow(wanted=not options.no_mlflow)
    try:
        server = Server(options.port, Path("outputs"), mlflow)
    except (OSError, OverflowError) as error:
        reason = f"Port {options.port} of 127.0.0.1 cannot be used: {getattr(error, 'strerror', None) or error}."
        raise ConfigError(reason, "Choose another: --port 8001, or leave it out for any that is free.") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with server:
        try:
            mlflow.look()  # it takes seconds to start
            console.print(server.address, markup=False)
            say("Ctrl-C ends it.")
            if not options.no_open and console.is_terminal:
                threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
            server.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")
        finally:
            mlflow.close()


cli = exits.command(main)

if __name__ == "__main__":
    cli()
