"""One script for each library that is measured.

Each runs in its own process and, where its dependencies ask for it, in its own environment. All share the command line
and the clock of :mod:`benchmarks.contenders.common`, and none but ``quixframes_contender`` imports quixframes.
"""
