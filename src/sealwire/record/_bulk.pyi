from sealwire.record import bulk_reference

weigh = bulk_reference.weigh
seal_trains = bulk_reference.seal_trains
open_data = bulk_reference.open_data
