"""The figures of a study: who can give to whom, and curves over the settings that were swept."""

from collections.abc import Mapping
from typing import Any

from contrans.models.reference import short_name
from contrans.report.sweeps import sweep_figure
from flows.matrix_report import matrix_figures, model_labels


def study_figures(document: Mapping[str, Any]) -> dict[str, bytes]:
    """PNGs by the names of their files.

    Of a matrix the heat maps of source × target for each swept setting, and for each pair a figure over the swept
    settings: lines over numbers such as the number of texts, heat maps over anything else. Of a sweep its figure, which
    for checkpoints of a source shows when each concept forms.

    Args:
        document: of a sweep or a matrix, see `flows.results`.
    """
    if "sweep" in document:
        done = any(point["summary"] for point in document["sweep"]["points"])
        return {f"{_named(document['sweep']['keys'])}.png": sweep_figure(document)} if done else {}
    found = matrix_figures(document)
    if document["matrix"]["keys"]:
        for name, of_pair in pair_sweeps(document).items():
            if any(point["summary"] for point in of_pair["sweep"]["points"]):
                found[f"{_named(document['matrix']['keys'])}.{name}.png"] = sweep_figure(of_pair)
    return found


def pair_sweeps(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A swept matrix as the documents of sweeps, one for each pair and family of concepts, by its name in a path."""
    cells, keys = document["matrix"]["cells"], document["matrix"]["keys"]
    names = model_labels([cell[side] for side in ("source", "target") for cell in cells])
    families: dict[tuple[str, str], list[str]] = {}
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        pair = cell["source"], cell["target"]
        family = short_name(str(cell["concepts"][0]).removesuffix("/*"))
        of_pair = families.setdefault(pair, [])
        if family not in of_pair:
            of_pair.append(family)
        models = "-".join(short_name(names[model]) for model in pair)
        name = models if len(of_pair) == 1 else f"{models}.{family}"
        shared = {**document["spec"], "source": cell["source"], "target": cell["target"]}
        made = found.setdefault(name, {"spec": shared, "sweep": {"keys": list(keys), "points": []}})
        made["sweep"]["points"].append(cell)
    return found


def _named(keys: list[str]) -> str:
    return "by-" + "-and-".join(key.replace(".", "-") for key in keys)
