"""Batches: many pictures, a manifest that survives being killed, one machine or a cluster.

Plan wishes into a manifest (`planning.plan`), then run what is left (`pipeline.run` here,
`cluster.run` on a Ray cluster); `watch.arrivals` gives jobs as pictures come.
"""
