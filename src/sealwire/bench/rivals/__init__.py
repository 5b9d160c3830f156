"""Other software, measured beside ours where it is on this machine, in the way people use it."""
