"""What flows are: protocols, names and fingerprints from their first packets.

`facts` says how an answer is written, `desk` decides whom a flow's bytes are for, a module per protocol
reads them.  The compiled desk is `_hot`; the plain-Python one is its oracle.
"""
