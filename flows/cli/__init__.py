"""The command line: stdout is data, stderr is talk, and every mistake is one sentence and exit code 2."""

import errno
import gc
import sys
from collections.abc import Sequence

from contrans.errors import ContransError

MISTAKE, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Args:
        arguments: What was typed after `contrans`; by default the process's own arguments.
    """
    from flows.cli.app import app
    from flows.cli.completing import whole_words, with_hidden_completion

    try:
        with whole_words():
            with_hidden_completion(app)(arguments, prog_name="contrans")
    except ContransError as error:
        from flows.cli.talk import complain

        complain(str(error))
        sys.exit(MISTAKE)
    except OSError as error:
        # Where it is met while a model, a step or the registry is written, they say so themselves.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        from flows.cli.talk import complain

        place = f" of {error.filename}" if error.filename else ""
        complain(f"The disk{place} is full; free space and type it again, what is done is not done again.")
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        # Python's last collection would look through all that torch and Prefect have made, for seconds.
        gc.freeze()
