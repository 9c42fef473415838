"""What runs on a server: flows with forms, their deployments, and the processes that serve them.

| flow | what it does |
|---|---|
| `refine` | concept vectors of the source, registered |
| `align` | the maps from source to target, registered |
| `transplant` | dose calibrated and every arm validated, registered and tracked |
| `refresh` | whole pipelines, sweeps and matrices, one after another or side by side |
| `cell` | one whole pipeline, as a refresh hands them to workers |
| `publish` | a transplant of the registry to the Hub, after somebody approved it if wanted |
| `import_from_hub` | a published concept into the registry |
| `revalidate` | published transplants scored again on their target's newest revision |
"""
