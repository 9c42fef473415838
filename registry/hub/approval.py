"""Whether a transplant may be published: it was validated, and it passes the gate of production if there is one."""

from contrans.errors import RegistryError
from registry.api import Registry
from registry.gates import parse_gate, shortfalls
from registry.names import listed
from registry.records import Version

GATED_BY = "production"  # the alias whose gate counts: what may not go into production may not go to strangers


def require(registry: Registry, transplant: Version) -> None:
    """Refuses a transplant that nobody has measured, or whose numbers fall short.

    Args:
        registry: where it is.
        transplant: the transplant.

    Raises:
        RegistryError: there is no validation with results, or these do not pass the gate that protects the alias
            "production" (see `Registry.protect`).
    """
    rows = [row for validation in registry.validations(transplant) for row in registry.results(validation)]
    if not rows:
        raise RegistryError(
            f"{transplant.ref} has no validation, so nobody knows what it does; validate it with `contrans run`, or "
            "publish it all the same with --force (force=True)."
        )
    gate = registry.protections().get(GATED_BY)
    missed = shortfalls(parse_gate(gate), rows) if gate is not None else []
    if missed:
        raise RegistryError(
            f"{transplant.ref} may not be published: {listed(missed, most=3)}, below the gate of {GATED_BY!r}; "
            "publish a better version, or this one all the same with --force (force=True)."
        )
