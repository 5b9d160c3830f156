"""Protection of records, one direction and one epoch at a time.

`protect` is what connections over datagrams use, `stream` what connections over a byte stream
use.  Both hand out the compiled implementation (`_record`) where it is usable and its
plain-Python twin (`reference`) everywhere else; the two give the same answers to the same bytes.
"""
