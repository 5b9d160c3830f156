from sealwire.record.folding_reference import fold as fold
from sealwire.record.folding_reference import unfold as unfold
