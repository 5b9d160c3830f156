"""The bench: one way to measure everything, built so that it cannot flatter.

A measurement is declared (`measurement`), never a script of its own: name, figures with unit and
direction, and contenders, of which one is ours.  The runner (`runner`) gives each contender a
process pinned to a core (`worker`), warms it up and measures all of them in turns, A B A B.  What
comes out (`results`) says on which machine, from which commit and on which OpenSSL, and can be
compared (`compare`), held against promises (`slo`) and shown (`report`).

A figure that would not change if the crypto were removed is caught: every secured row also runs
with its crypto turned off, and what that saves must fit what the crypto costs alone (`selfcheck`).
docs/bench.md is the manual.
"""
