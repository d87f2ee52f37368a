"""How fast and how good, beside the machine's floor and other tools: `python -m benchmarks --help`."""
