"""Pictures of the boards for docs/dashboards.md, where no Grafana is at hand: `python -m pictures`.

`answers` asks a real Prometheus what a panel asks, `units` writes values as Grafana writes them,
`panels` and `charts` draw the kinds of panels that our boards have, and Chromium takes the picture.
"""
