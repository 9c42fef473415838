"""repeng's extraction in an environment of its own: its version on PyPI needs NumPy before 2."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Self

VERSION = "0.4.0"

_SCRIPT = """
import json, sys
asked = json.load(open(sys.argv[1]))
import torch
torch.set_num_threads(asked["threads"])
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from repeng.extract import batched_get_hiddens
model = AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast.from_pretrained(asked["folder"])
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
tokenizer.padding_side = "right"
layers = list(range(model.config.num_hidden_layers))
print("ready", flush=True)
for line in sys.stdin:
    batched_get_hiddens(model, tokenizer, asked["texts"], layers, asked["batch"])
    print("done", flush=True)
"""


class Repeng:
    """A process that extracts hidden states whenever it is called.

    Args:
        folder: the model's files.
        texts: what it reads.
        batch: texts at once; repeng's own default is 32.
        threads: as many as the other side has.
        home: where the environment and the process's orders are kept.

    Raises:
        RuntimeError: the environment cannot be made, or repeng does not start in it.
    """

    def __init__(self, folder: Path, texts: Sequence[str], *, threads: int, home: Path, batch: int = 32) -> None:
        python = _environment(home / f"repeng-{VERSION}")
        orders = home / "repeng.json"
        asked = {"folder": str(folder), "texts": list(texts), "threads": threads, "batch": batch}
        orders.write_text(json.dumps(asked), encoding="utf-8")
        self._process = subprocess.Popen(
            [python, "-c", _SCRIPT, orders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(home / "repeng.log").open("w"),
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"},
        )
        self._wait("ready", home / "repeng.log")
        self._log = home / "repeng.log"

    def __call__(self) -> None:
        """Extracts once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self._wait("done", self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _wait(self, word: str, log: Path) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != word:
            self._process.kill()
            raise RuntimeError(f"repeng {VERSION} does not run: {log.read_text()[-300:]}")


def _environment(folder: Path) -> Path:
    """An interpreter with repeng and its NumPy, which has torch and transformers from this one."""
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, text=True)
            install = [python, "-m", "pip", "install", "--quiet", "--no-deps", f"repeng=={VERSION}", "numpy<2"]
            subprocess.run(install, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"repeng {VERSION} cannot be installed: {error.stderr[-300:]}") from error
        # what stands in a .pth comes after the environment's own packages: its NumPy wins
        own = next(folder.glob("lib/python3*/site-packages"))
        (own / "below.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        done.touch()
    return python
