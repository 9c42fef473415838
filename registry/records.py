"""What the registry hands out and takes in: versions, results, runs, moves of aliases, problems."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from contrans.errors import RegistryError
from registry.names import MAX_NAME, plain_number, plain_text


@dataclass(frozen=True)
class Version:
    """One immutable version of a model, text set, vector, map, transplant or validation.

    Attributes:
        id: Key in this database; another registry gives the same version another id.
        kind: "model", "text_set", "vector", "map", "transplant" or "validation".
        name: Path-like name, such as "anger/gemma-3-270m".
        number: 1, 2, … without gaps for each kind and name.
        digest: SHA-256, in hex, over the content: name, manifest, files, inputs and results.
        created: When it was registered, in UTC.
        manifest: What it is and how to make it again, plain JSON.
        aliases: Aliases that pointed here when it was read.
    """

    id: int
    kind: str
    name: str
    number: int
    digest: str
    created: datetime
    manifest: dict[str, Any] = field(compare=False, repr=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)

    @property
    def ref(self) -> str:
        """The reference that `Registry.get` takes: "name@number"."""
        return f"{self.name}@{self.number}"

    def __str__(self) -> str:
        return f"{self.kind}:{self.ref}"

    def as_json(self, *, manifest: bool = False) -> dict[str, Any]:
        """Gives the version as plain JSON.

        Args:
            manifest: Whether the manifest, which can be long, goes along.

        Returns:
            `name`, `kind`, `version` (the number), `ref`, `aliases`, `created` (ISO 8601, UTC),
            `digest`, and `manifest` if asked for.
        """
        known = {
            "name": self.name,
            "kind": self.kind,
            "version": self.number,
            "ref": self.ref,
            "aliases": list(self.aliases),
            "created": self.created.isoformat(),
            "digest": self.digest,
        }
        return known | ({"manifest": self.manifest} if manifest else {})


@dataclass(frozen=True)
class Result:
    """One measured number of a validation.

    Attributes:
        concept: The concept measured, or a word such as "mean".
        protocol: How it was measured, such as "emotion".
        split: On which items: "refine", "dev" or "test".
        arm: "unsteered", "transplanted", "own", "random", …
        metric: "logit_accuracy", "gain_recovered", …
        dose: Shift relative to the residual scale, or None where no dose applies.
        value: The number, or None where it is not defined.
        low: Lower end of its interval.
        high: Upper end of its interval.
        n: Number of items it rests on.

    Raises:
        RegistryError: If a number is not finite or a text is empty or too long.
    """

    concept: str
    protocol: str
    split: str
    arm: str
    metric: str
    dose: float | None
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        what = f"of the result {self.concept}/{self.arm}/{self.metric}"[: 2 * MAX_NAME]
        for key in ("concept", "protocol", "split", "arm", "metric"):
            text = getattr(self, key)
            if not isinstance(text, str) or not text or len(text) > MAX_NAME:
                raise RegistryError(f"`{key}` {what} must be a text of 1 to {MAX_NAME} characters.")
            plain_text(text, f"`{key}` {what}")
        for key in ("dose", "value", "low", "high"):
            number = getattr(self, key)
            if number is not None:
                object.__setattr__(self, key, plain_number(number, f"`{key}` {what}"))
        if self.n is not None and (isinstance(self.n, bool) or not isinstance(self.n, int)):
            raise RegistryError(f"`n` {what} must be a whole number, not {self.n!r}.")
        if self.n is not None and not 0 <= self.n < 2**31:
            raise RegistryError(f"`n` {what} must lie between 0 and 2³¹, not at {self.n}.")


@dataclass(frozen=True)
class Run:
    """A run of a pipeline and its ids elsewhere; `ended` is None while it runs."""

    id: str
    flow_run_id: str | None
    mlflow_run_id: str | None
    commit: str | None
    spec_hash: str
    spec: dict[str, Any] = field(compare=False, repr=False)
    state: str
    started: datetime
    ended: datetime | None


@dataclass(frozen=True)
class AliasMove:
    """That an alias came to point at a version; `forced` if that was against the alias's gate."""

    alias: str
    version: Version
    moved_at: datetime
    forced: bool = False


@dataclass(frozen=True)
class Problem:
    """Something that `Registry.check` found.

    Attributes:
        kind: "missing" or "corrupt" (a blob that versions need), "altered" (a version whose rows no
            longer give its digest), "dangling" (a row that points at nothing, or lacks what belongs to it) or
            "orphaned" (a blob that no version needs; harmless).
        subject: SHA-256 of the blob, the file in the store, the version, or the table and key of the row.
        message: What is wrong and what to do, in a sentence.
        repaired: Whether `Registry.repair` put it right.
    """

    kind: str
    subject: str
    message: str
    repaired: bool = False

    def __str__(self) -> str:
        return self.message

    def as_json(self) -> dict[str, Any]:
        """Gives `kind`, `subject`, `message` and `repaired`."""
        return asdict(self)


@dataclass(frozen=True)
class Outdated:
    """That a version rests on one of which there is a newer one by now.

    Attributes:
        version: What is stale.
        role: What `used` served as, where it was used.
        used: The version that it was made from, directly or through others.
        newest: The newest version of the same name.
        direct: Whether `used` is an input of `version` itself.
    """

    version: Version
    role: str
    used: Version
    newest: Version
    direct: bool

    def __str__(self) -> str:
        how = "was made from" if self.direct else "rests on"
        return f"{self.version} {how} {self.used} ({self.role}), of which {self.newest.ref} is the newest"


@dataclass(frozen=True)
class Collected:
    """What `Registry.gc` removed, or would remove.

    Attributes:
        keys: Names in the blob store.
        size: Their bytes together.
        dry: Whether nothing was removed.
    """

    keys: tuple[str, ...]
    size: int
    dry: bool


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """What `Registry.register_many` registers; the fields are the arguments of `Registry.register`.

    An input is a registered version, or another `NewVersion` of the same call.
    """

    kind: str
    name: str
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    inputs: "Mapping[str, Version | NewVersion]" = field(default_factory=dict)
    results: Sequence[Result] = ()
