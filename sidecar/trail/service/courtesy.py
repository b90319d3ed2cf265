"""Giving the core to others between pieces of work.

vLLM's engine core and workers poll for each other's messages and offer their core at every look. Where all
cores are taken, a sidecar that computes for a millisecond on end holds a step up for as long; one that
offers the core in turn every tenth of that lets the engine core look, and go on, in between. On a free core
it costs about a microsecond. Figures: docs/benchmarks.md.
"""

import os

give_way = os.sched_yield
"""Call between pieces of work of about a tenth of a millisecond."""
