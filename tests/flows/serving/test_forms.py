"""What Prefect's UI shows as a form, and that it is checked before anything runs."""

import inspect
from typing import Any

import pytest
from prefect import Flow

from contrans.errors import SpecError
from flows.serving import forms
from flows.serving.importing import import_from_hub
from flows.serving.publishing import publish
from flows.serving.refreshing import cell, refresh
from flows.serving.revalidating import revalidate
from flows.serving.stages import align, refine, transplant

FLOWS = (refine, align, transplant, cell, refresh, publish, import_from_hub, revalidate)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_parameter_has_a_description(flow: Flow[..., Any]) -> None:
    properties = flow.parameters.model_dump()["properties"]
    assert set(properties) == set(inspect.signature(flow.fn).parameters)
    for name, found in properties.items():
        assert len(found["description"]) > 15, name
    required = [p.name for p in inspect.signature(flow.fn).parameters.values() if p.default is p.empty]
    assert flow.parameters.model_dump().get("required", []) == required
    assert (flow.description or "").strip()


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        (refine, {"settings": ["no equals sign"]}),
        (refresh, {"specs": []}),
        (publish, {"name": "anger", "to": "no-slash"}),
        (publish, {"name": "anger", "to": "org/repo", "days": 0}),
        (publish, {"name": "", "to": "org/repo"}),
        (import_from_hub, {"repo": "anger"}),
        (revalidate, {"night": "yesterday"}),
    ],
)
def test_what_does_not_fit_is_refused(flow: Flow[..., Any], parameters: dict[str, Any]) -> None:
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError):
        flow.validate_parameters(parameters)


def test_a_spec_is_a_name_or_json() -> None:
    assert forms.read("quickstart", ["seed=3"]).seed == 3
    assert forms.read({"source": "a/b", "target": "c/d"}, []).source == "a/b"
    with pytest.raises(SpecError, match="souce"):
        forms.read({"souce": "a/b", "target": "c/d"}, [])
    with pytest.raises(SpecError, match="write them into the spec itself"):
        forms.read({"source": "a/b", "target": "c/d"}, ["seed=3"])
