"""`contrans schema`."""

import json
from pathlib import Path

from contrans.errors import SpecError
from flows.cli.talk import print_json
from flows.spec.schema import spec_schema


def schema_command(*, out: Path | None) -> None:
    """Gives the JSON schema of a spec file.

    Args:
        out: Where it is written; None prints it.

    Raises:
        SpecError: The file cannot be written.
    """
    schema = spec_schema()
    if out is None:
        print_json(schema)
        return
    try:
        out.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SpecError(f"The schema cannot be written to {out} ({error.strerror}); name another file.") from error
