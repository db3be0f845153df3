"""Contracts: what the rows of a topic have to be like, and what happens to those that are not.

======================  ================================================================================
`contracts.declared`    a `Parameter` and a `Tag`: dtype, unit, range, required or not, nullable or not
`contracts.contract`    a `Contract`: declared, taken from a schema, learned from rows; as JSON
`contracts.evolution`   what differs between two contracts, and whether the one may follow the other
`contracts.promotions`  a column from one dtype to another, where that is exact value by value
`contracts.conform`     a `Conformer`: a contract applied to record batches
======================  ================================================================================

Pure: no I/O, no thread, no clock.
"""

from quixframes.contracts.conform import Conformed, Conformer, Problem
from quixframes.contracts.contract import Contract
from quixframes.contracts.declared import Parameter, Tag
from quixframes.contracts.evolution import Difference, check_evolution

__all__ = [
    "Conformed",
    "Conformer",
    "Contract",
    "Difference",
    "Parameter",
    "Problem",
    "Tag",
    "check_evolution",
]
