"""What one run chose, as settings for another: a map that is chosen once for a pair and serves many concepts."""

import json
from pathlib import Path

from contrans.errors import SpecError


def settings_of_choice(path: Path) -> list[str]:
    """Settings that name the blocks, the kinds of rows and the estimator that a run chose on dev.

    Args:
        path: the document that `contrans run --json` wrote.

    Raises:
        SpecError: it cannot be read, is no such document, or nothing was chosen in it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{path} cannot be read as JSON ({error}); give what `contrans run --json FILE` wrote."
        ) from error
    choice = document.get("choice") if isinstance(document, dict) else None
    if not isinstance(choice, dict) or "chosen" not in choice:
        raise SpecError(
            f"{path} holds no choice of a map; give what `contrans run --json FILE` wrote about one pair of models."
        )
    chosen = choice["chosen"]
    try:
        return [
            f"blocks.source={chosen['source_block']}",
            f"blocks.target={chosen['target_block']}",
            f"corpus.mixes=[[{','.join(chosen['mix'])}]]",
            f"map.estimator={chosen['estimator']}",
            f"map.lambda_select={chosen['lambda_select']}",
        ]
    except (KeyError, TypeError) as error:
        raise SpecError(f"The choice in {path} lacks {error}; run it again with this version.") from error
