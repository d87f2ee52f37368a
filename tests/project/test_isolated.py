"""What tests share with threads, of `tests/support/isolated.py`."""

import logging
import uuid
from itertools import islice


def test_who_goes_through_all_loggers_is_not_disturbed_by_a_new_one() -> None:
    """As pytest does before each phase of a test, while a thread imports a module."""
    for _ in islice(logging.root.manager.loggerDict.values(), 2):
        logging.getLogger(uuid.uuid4().hex)
