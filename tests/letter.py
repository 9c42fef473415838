"""How Gemma goes on with a sentence under each of the quickstart's transplants: `python -m tests.letter`."""

from rich.console import Console
from rich.table import Table

import contrans
from contrans import ConceptVector
from registry import Registry

PROMPT, DOSE = "When the letter came, she", 0.2
EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


def main() -> None:
    """Prints one greedy continuation per emotion, and the unsteered one."""
    target = contrans.load_model("pypi:gemma-3-270m")
    table = Table("transplant", f"{PROMPT} …")
    settings = {"max_new_tokens": 20, "repetition_penalty": 1.2}
    table.add_row("none", target.complete(PROMPT, **settings)[0].strip())
    with Registry.open() as registry:
        for emotion in EMOTIONS:
            version = registry.get(emotion)
            files = {name: registry.read(version, name) for name in registry.files(version)}
            with contrans.transplant(target, ConceptVector.from_files(files), dose=DOSE):
                table.add_row(emotion, target.complete(PROMPT, **settings)[0].strip())
    Console().print(table)


if __name__ == "__main__":
    main()
