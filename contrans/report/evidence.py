"""The one result type: what a protocol found, as JSON, on a terminal, in a model card and as a figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from contrans.errors import ArtifactError
from contrans.report.card import evidence_section
from contrans.report.figures import effect_by_arm, effect_by_kl
from contrans.report.grids import curve_summary, grids_of
from contrans.validation.findings import Finding, findings_of, item_count, table_findings
from contrans.validation.row_table import RowTable
from contrans.validation.significance import DRAWN, Comparison, comparisons
from contrans.validation.statistics import half_width, power_note

if TYPE_CHECKING:  # results are shown without torch, which rows are made with
    from contrans.validation.rows import Row

_KEYS = {"protocol", "effect", "source", "target", "kl_budget", "summary", "findings", "samples", "rows"}
_STYLES = {"failure": "bold red", "warning": "yellow", "note": ""}


@dataclass(frozen=True)
class Evidence:
    """What a protocol found, and how far it may be believed.

    Attributes:
        results: the rows of the protocol.
        summary: value, low and high of gain recovered and of what else the protocol sums up.
        findings: what a reader must know, failures first.
        samples: continuations under the arms, each with `prompt`, `arm` and `text`, and `flaw` if it is empty, copied
            or degenerate.
        source: name of the source model.
        target: name of the target model.
        kl_budget: the KL that doses were chosen under, if they were.
    """

    results: RowTable
    summary: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    target: str = ""
    kl_budget: float | None = None

    @classmethod
    def of(
        cls,
        rows: "Iterable[Row | Mapping[str, Any]]",
        *,
        protocol: str | None = None,
        effect: str | None = None,
        summary: Mapping[str, Any] = {},
        findings: Iterable[Finding] | None = None,
        samples: Iterable[Mapping[str, Any]] = (),
        chance: Mapping[str, float] = {},
        source: str = "",
        target: str = "",
        kl_budget: float | None = None,
    ) -> "Evidence":
        """Evidence from rows.

        Args:
            rows: `contrans.validation.rows.Row` or their JSON, of any protocol.
            protocol: whose rows; needed where they are of several.
            effect: the metric the protocol is about; by default its first.
            summary: what the protocol sums up.
            findings: what a reader must know; by default what the rows show by themselves.
            samples: continuations under the arms.
            chance: what guessing scores, per metric; for the findings.
            source: name of the source model.
            target: name of the target model.
            kl_budget: the KL that doses were chosen under.

        Raises:
            ArtifactError: there are no rows of the protocol or of the effect, or a row lacks a key.
        """
        table = RowTable.of(rows, protocol=protocol, effect=effect)
        found = table_findings(table, summary=summary, chance=chance) if findings is None else findings
        return cls(table, dict(summary), tuple(found), tuple(samples), source, target, kl_budget)

    @classmethod
    def of_document(cls, document: Mapping[str, Any], *, protocol: str | None = None) -> "Evidence":
        """Evidence from what a run wrote (`contrans run --json`).

        The run's summary, its samples, and findings on its vectors and map belong to the protocol of its spec, or to
        the only one that it has rows of; other protocols have their rows, and findings on these.

        Args:
            document: see `contrans.validation.findings.findings_of` for the keys that are read, besides `samples` and
                the `source`, `target` and `validate` of `spec`.
            protocol: whose rows; needed where there are several.

        Raises:
            ArtifactError: there are no rows of the protocol, or a row lacks a key.
        """
        spec = document.get("spec") or {}
        rows = document.get("validations") or ()
        chosen = RowTable.of(rows, protocol=protocol)
        main = (spec.get("validate") or {}).get("protocol")
        is_main = chosen.protocol == main or len(chosen.rows) == len(rows)
        # a summary names no protocol, so of several it cannot be told whose it is without a spec
        summary = document.get("summary") or {} if is_main else {}
        beside = main is not None and not is_main
        judged = {**document, "validations": chosen.rows, "summary": summary}
        return cls.of(
            chosen.rows,
            effect=(document.get("effects") or {}).get(chosen.protocol),
            summary=summary,
            findings=None if beside else findings_of(judged),
            samples=() if beside else document.get("samples") or (),
            chance=document.get("chance") or {},
            source=spec.get("source", ""),
            target=spec.get("target", ""),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Evidence":
        """What `to_json` wrote.

        Raises:
            ArtifactError: a key is missing, or a row lacks one.
        """
        lacking = sorted(_KEYS - value.keys())
        if lacking:
            raise ArtifactError(f"The evidence lacks {', '.join(lacking)}; give what Evidence.to_json wrote.")
        return cls.of(
            value["rows"],
            protocol=value["protocol"],
            effect=value["effect"],
            summary=value["summary"],
            findings=[Finding(**f) for f in value["findings"]],
            samples=value["samples"],
            source=value["source"],
            target=value["target"],
            kl_budget=value["kl_budget"],
        )

    @property
    def comparisons(self) -> list[Comparison]:
        """Every steered arm against the unsteered model, and the transplant against controls of many draws."""
        arms = [a for a in self.results.arms() if a != "unsteered"]
        found = [c for arm in arms for c in comparisons(self.results, arm)]
        if "transplanted" in arms:
            found += [c for arm in DRAWN if arm in arms for c in comparisons(self.results, "transplanted", against=arm)]
        return found

    @property
    def power(self) -> str:
        """What so many items can see: "n=200 sees differences of ±7 points"; empty where the effect is no share."""
        n = item_count(self.results)
        return "" if n is None else power_note(n)

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object: the rows, and what is derived from them."""
        n = item_count(self.results)
        return {
            "protocol": self.results.protocol,
            "effect": self.results.effect,
            "source": self.source,
            "target": self.target,
            "kl_budget": self.kl_budget,
            "summary": dict(self.summary),
            "comparisons": [c.to_json() for c in self.comparisons],
            "curves": [
                {"concept": concept, **curve}
                for concept in self.results.headlines()
                for curve in curve_summary(self.results, concept)
            ],
            "power": None if n is None else {"n": n, "half_width": half_width(n), "words": self.power},
            "findings": [f.to_json() for f in self.findings],
            "samples": [dict(s) for s in self.samples],
            "rows": [dict(row) for row in self.results.rows],
        }

    def table(self) -> list[RenderableType]:
        """Tables, findings and what the items can see; `console.print(evidence)` of a rich console prints them all."""
        parts: list[RenderableType] = [*grids_of(self.results)]
        for f in self.findings:
            parts.append(Text.assemble((f"{f.severity}: ", _STYLES[f.severity]), f.sentence))
        if self.power:
            parts.append(Text(f"{self.power} (95 %, one share near a half)."))
        return parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.table()

    def markdown(self, *, heading: str = "##", samples: int = 6) -> str:
        """A section of a model card: results with controls, findings as sentences, what the items can see, samples.

        Args:
            heading: the marks of its heading; its parts are one level below.
            samples: most continuations to show.
        """
        return evidence_section(
            self.results,
            title=" → ".join(filter(None, [self.source, self.target])),
            findings=self.findings,
            power=self.power,
            samples=self.samples[:samples],
            heading=heading,
        )

    def figure(self) -> bytes:
        """A PNG: effect against KL where dose curves have one, else the effect of every arm."""
        concept = self.results.headlines()[0]
        if any(self.results.curve_by_kl(arm, concept=concept) for arm in self.results.arms("dev")):
            return effect_by_kl(
                self.results, source=self.source, target=self.target, concept=concept, budget=self.kl_budget
            )
        return effect_by_arm(self.results, source=self.source, target=self.target)


def evidence_of(document: Mapping[str, Any]) -> Sequence[Evidence]:
    """Evidence of every protocol in a run's document, in the order of its rows."""
    protocols = dict.fromkeys(row["protocol"] for row in document.get("validations") or ())
    return [Evidence.of_document(document, protocol=protocol) for protocol in protocols]
