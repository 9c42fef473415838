"""Where else a run can be looked at: the addresses of its pages in MLflow and in Prefect, as far as they are known."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

from contrans.errors import SpecError
from registry.records import Run

_CLOUD = re.compile(
    r"https://api(?P<domain>\.prefect\.[^/]+)/api/accounts/(?P<account>[^/]+)/workspaces/(?P<space>[^/]+)"
)


@dataclass(frozen=True)
class Elsewhere:
    """Web addresses of MLflow and of Prefect; "" where one is not known."""

    mlflow: str = ""
    prefect: str = ""

    @classmethod
    def find(
        cls, mlflow: str | None = None, prefect: str | None = None, *, environment: Mapping[str, str] = os.environ
    ) -> Self:
        """Takes the addresses that are given, and else those that the environment knows.

        Args:
            mlflow: Address of MLflow's pages; by default `MLFLOW_TRACKING_URI`, where that is on the web.
            prefect: Address of Prefect's pages; by default `PREFECT_UI_URL`, or what `PREFECT_API_URL` leads to.
            environment: Environment variables.

        Raises:
            SpecError: If an address that is given is none of http or https.
        """
        for option, given in (("--mlflow", mlflow), ("--prefect", prefect)):
            if given is not None and not web_address(given):
                raise SpecError(f"{option} {given!r} is no web address; give one such as http://127.0.0.1:5000.")
        known = web_address(environment.get("PREFECT_UI_URL", "")) or pages_of(environment.get("PREFECT_API_URL", ""))
        return cls(
            mlflow=web_address(mlflow or environment.get("MLFLOW_TRACKING_URI", "")),
            prefect=web_address(prefect) if prefect else known,
        )

    def mlflow_run(self, run: Run) -> str:
        """The page of a run in MLflow, or "". The page finds the run's experiment by itself and leads there."""
        if not self.mlflow or not run.mlflow_run_id:
            return ""
        return f"{self.mlflow}/#/runs/{quote(run.mlflow_run_id, safe='')}"

    def prefect_run(self, run: Run) -> str:
        """The page of a run in Prefect, or ""."""
        if not self.prefect or not run.flow_run_id:
            return ""
        return f"{self.prefect}/runs/flow-run/{quote(run.flow_run_id, safe='')}"

    def lacking(self, run: Run) -> str:
        """The options that would make links of a run's ids, such as "--mlflow URL"; "" where none is lacking."""
        ids = {"--mlflow URL": (run.mlflow_run_id, self.mlflow), "--prefect URL": (run.flow_run_id, self.prefect)}
        return " ".join(option for option, (id_, address) in ids.items() if id_ and not address)


NOWHERE = Elsewhere()
"""Where neither is known."""


def web_address(text: str) -> str:
    """An address of http or https without a name, a password, a query or a slash at its end; "" for anything else."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or not re.fullmatch(r"[\w.:-]+", host, re.ASCII):
        return ""
    shown = f"[{host}]" if ":" in host else host
    path = quote(parts.path.rstrip("/"), safe="/%:@-._~")
    return urlunsplit((parts.scheme, shown if port is None else f"{shown}:{port}", path, "", ""))


def pages_of(api: str) -> str:
    """The address of Prefect's pages from that of its API; "" where it is on no web address."""
    address = web_address(api)
    cloud = _CLOUD.fullmatch(address)
    if cloud is not None:
        return f"https://app{cloud['domain']}/account/{cloud['account']}/workspace/{cloud['space']}"
    return address.removesuffix("/api")
